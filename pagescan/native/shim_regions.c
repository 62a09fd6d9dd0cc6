/* SPDX-License-Identifier: MIT */
/*
 * The algebra of region lists. Each list is ascending and disjoint, and so are the ranges.
 *
 * A function that returns rows writes up to out->capacity of them and counts all: it returns 1 if
 * there were more, and out->length is then enough room for another call. Neighbours that touch and
 * have equal categories become one row. A long list is searched, and not walked, from one row of a
 * short list to the next: a look that finds little costs little beside 100,000 mappings.
 */
#include <stddef.h>

#include "search.h"
#include "shim.h"

/* Appends a row, or extends the last one; owner may be NULL. */
static void add(struct ps_columns *out, int64_t *owner, uint64_t start, uint64_t end,
		uint64_t categories, int64_t whose)
{
	uint64_t last = out->length - 1;

	if (out->length && out->length <= out->capacity && out->end[last] == start &&
	    out->categories[last] == categories && (!owner || owner[last] == whose)) {
		out->end[last] = end;
		return;
	}
	if (out->length++ >= out->capacity)
		return;
	out->start[last + 1] = start;
	out->end[last + 1] = end;
	out->categories[last + 1] = categories;
	if (owner)
		owner[last + 1] = whose;
}

int ps_join(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	    uint64_t ranges, struct ps_columns *out, int64_t *owner)
{
	uint64_t range = 0;

	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t at = regions->start[i], end = regions->end[i];

		while (at < end) {
			uint64_t stop = end;
			int64_t whose = -1;

			range = next_behind(ends, range, ranges, at);
			if (range < ranges && starts[range] <= at) {
				whose = (int64_t)range;
				stop = earlier(end, ends[range]);
			} else if (range < ranges) {
				stop = earlier(end, starts[range]);
			}
			add(out, owner, at, stop, regions->categories[i], whose);
			at = stop;
		}
	}
	return out->length > out->capacity;
}

int ps_inside(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	      uint64_t ranges, struct ps_columns *out)
{
	uint64_t i = 0, range = 0;

	while (i < regions->length) {
		uint64_t low, high;

		range = next_behind(ends, range, ranges, regions->start[i]);
		if (range == ranges)
			break;
		low = later(regions->start[i], starts[range]);
		high = earlier(regions->end[i], ends[range]);
		if (low < high)
			add(out, NULL, low, high, regions->categories[i], 0);
		if (regions->end[i] <= ends[range])
			i = next_behind(regions->end, i, regions->length,
					later(starts[range], regions->end[i]));
		else
			range++;
	}
	return out->length > out->capacity;
}

int ps_outside(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	       uint64_t ranges, struct ps_columns *out)
{
	uint64_t range = 0;

	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t at = regions->start[i], end = regions->end[i];

		while (at < end) {
			uint64_t low = end;

			range = next_behind(ends, range, ranges, at);
			if (range < ranges)
				low = earlier(end, starts[range]);
			if (at < low)
				add(out, NULL, at, low, regions->categories[i], 0);
			at = low < end ? ends[range] : end;
		}
	}
	return out->length > out->capacity;
}

int ps_shares(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	      uint64_t ranges, struct ps_shares *out)
{
	uint64_t range = 0, last = ranges;

	out->length = out->outside = 0;
	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t at = regions->start[i], end = regions->end[i];

		while (at < end) {
			uint64_t low = end, high = end;

			range = next_behind(ends, range, ranges, at);
			if (range < ranges) {
				low = earlier(end, later(at, starts[range]));
				high = earlier(end, ends[range]);
			}
			out->outside += low - at;
			at = high;
			if (low >= high)
				continue;
			if (range != last && out->length++ < out->capacity) {
				out->ranges[out->length - 1] = range;
				out->bytes[out->length - 1] = 0;
			}
			last = range;
			if (out->length <= out->capacity)
				out->bytes[out->length - 1] += high - low;
		}
	}
	return out->length > out->capacity;
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
			add(out, NULL, at, stop, over->categories[high], 0);
		else if (below && !above)
			add(out, NULL, at, stop, under->categories[low], 0);
		at = stop;
		low += below && under->end[low] <= at;
		high += above && over->end[high] <= at;
	}
	return out->length > out->capacity;
}

int ps_relabel(const struct ps_columns *regions, const uint64_t *old_bits, const uint64_t *new_bits,
	       uint64_t labels, struct ps_columns *out)
{
	uint64_t k = 0;

	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t bits = regions->categories[i];

		/* most regions have the bits of the previous one */
		if (k == labels || old_bits[k] != bits)
			for (k = 0; k < labels && old_bits[k] != bits; k++)
				;
		if (k < labels)
			add(out, NULL, regions->start[i], regions->end[i], new_bits[k], 0);
	}
	return out->length > out->capacity;
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
			add(out, NULL, start, end, 0, 0);
	}
	return out->length > out->capacity;
}
