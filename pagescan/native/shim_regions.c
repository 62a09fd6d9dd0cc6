/* SPDX-License-Identifier: MIT */
/* Loops over regions: the join with mappings, the overlay of two lists, and the tally. */
#include "shim.h"

static void put(struct ps_columns *out, int64_t *owner, uint64_t start, uint64_t end,
		uint64_t categories, int64_t whose)
{
	uint64_t last = out->length - 1;

	if (out->length && out->end[last] == start && out->categories[last] == categories &&
	    owner[last] == whose) {
		out->end[last] = end;
		return;
	}
	out->start[out->length] = start;
	out->end[out->length] = end;
	out->categories[out->length] = categories;
	owner[out->length++] = whose;
}

static void add(struct ps_columns *out, uint64_t start, uint64_t end, uint64_t categories)
{
	uint64_t last = out->length - 1;

	if (out->length && out->end[last] == start && out->categories[last] == categories) {
		out->end[last] = end;
		return;
	}
	out->start[out->length] = start;
	out->end[out->length] = end;
	out->categories[out->length++] = categories;
}

int ps_join(const struct ps_columns *regions, const uint64_t *map_starts, const uint64_t *map_ends,
	    uint64_t maps, struct ps_columns *out, int64_t *owner)
{
	uint64_t map = 0;

	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t at = regions->start[i], end = regions->end[i];

		while (at < end) {
			uint64_t stop = end;
			int64_t whose = -1;

			while (map < maps && map_ends[map] <= at)
				map++;
			if (map < maps && map_starts[map] <= at) {
				whose = (int64_t)map;
				if (map_ends[map] < stop)
					stop = map_ends[map];
			} else if (map < maps && map_starts[map] < stop) {
				stop = map_starts[map];
			}
			put(out, owner, at, stop, regions->categories[i], whose);
			at = stop;
		}
	}
	return 0;
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* The next edge of a list behind `at`: the end of the region there, or the next start. */
static uint64_t next_edge(const struct ps_columns *list, uint64_t i, uint64_t at)
{
	if (i == list->length)
		return UINT64_MAX;
	return list->start[i] <= at ? list->end[i] : list->start[i];
}

int ps_overlay(const struct ps_columns *under, const struct ps_columns *over, uint64_t outside,
	       struct ps_columns *out)
{
	uint64_t at = 0, low = 0, high = 0;

	while (low < under->length || high < over->length) {
		uint64_t stop = earlier(next_edge(under, low, at), next_edge(over, high, at));
		int below = low < under->length && under->start[low] <= at;
		int above = high < over->length && over->start[high] <= at;

		if (above && (below || outside))
			add(out, at, stop, over->categories[high]);
		else if (below && !above)
			add(out, at, stop, under->categories[low]);
		at = stop;
		low += below && under->end[low] <= at;
		high += above && over->end[high] <= at;
	}
	return 0;
}

int ps_tally(const struct ps_columns *regions, const int64_t *owner, uint64_t page_size,
	     uint64_t maps, uint64_t *pages, uint64_t *counts)
{
	for (uint64_t i = 0; i < regions->length; i++) {
		int64_t whose = owner ? owner[i] : 0;
		uint64_t count = (regions->end[i] - regions->start[i]) / page_size;

		if (whose < 0 || (uint64_t)whose >= maps)
			continue;
		pages[whose] += count;
		for (uint64_t bit = 0; bit < PS_CATEGORY_BITS; bit++)
			if (regions->categories[i] >> bit & 1)
				counts[(uint64_t)whose * PS_CATEGORY_BITS + bit] += count;
	}
	return 0;
}

int ps_whole_units(const struct ps_columns *regions, uint64_t unit, uint64_t left_out,
		   struct ps_columns *out)
{
	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t start = regions->start[i] + unit - 1, end = regions->end[i];

		start -= start % unit;
		end -= end % unit;
		if (start < end && regions->categories[i] != left_out)
			add(out, start, end, 0);
	}
	return 0;
}
