/* SPDX-License-Identifier: MIT */
/*
 * Counts per page over many looks, thousands of them per call. The looks are read from their packed
 * form once. The caller makes room for the counts before the looks are counted.
 */
#include <stddef.h>

#include "packed.h"
#include "search.h"

/* No process has written more between two looks: 8 TiB of pages of 4 KiB. */
#define MOST_PAGES (1ull << 31)

/* The parts that were read, and the ranges that they are in; they go on if there is no room. */
struct parts {
	const struct ps_looks *out;
	uint64_t capacity;
	uint64_t length;
	const uint64_t *low;
	const uint64_t *high;
	uint64_t ranges;
};

static void add_part(struct parts *parts, uint64_t start, uint64_t stop)
{
	if (parts->length < parts->capacity) {
		parts->out->starts[parts->length] = start;
		parts->out->stops[parts->length] = stop;
	}
	parts->length++;
}

/* Adds the parts of a region that lie in ranges, from `range` on; returns the next range to try. */
static uint64_t add_inside(struct parts *parts, uint64_t range, uint64_t start, uint64_t stop)
{
	uint64_t size = parts->out->page_size;

	while (start < stop) {
		uint64_t low, high;

		range = next_behind(parts->high, range, parts->ranges, start * size);
		if (range == parts->ranges)
			break;
		low = later(start, parts->low[range] / size);
		high = earlier(stop, parts->high[range] / size);
		if (low >= high)
			break;
		add_part(parts, low, high);
		start = high;
	}
	return range;
}

/* Reads one look; returns 0 if it is damaged. */
static int read_look(struct parts *parts, struct ps_packed *look)
{
	uint64_t most = UINT64_MAX / parts->out->page_size, pages = 0, range = 0;
	int more;

	while ((more = next_region(look, most)) > 0) {
		pages += look->end - look->start;
		if (pages > MOST_PAGES)
			return 0;
		if (parts->low)
			range = add_inside(parts, range, look->start, look->end);
		else
			add_part(parts, look->start, look->end);
	}
	return !more;
}

int ps_read_looks(const uint8_t *bytes, const uint64_t *ends, const uint64_t *low,
		  const uint64_t *high, uint64_t ranges, const struct ps_looks *out,
		  uint64_t capacity, uint64_t *length, uint8_t *damaged)
{
	struct parts parts = {out, capacity, 0, low, high, ranges};

	for (uint64_t i = 0, begin = 0; i < out->count; begin = ends[i++]) {
		struct ps_packed look = {.bytes = bytes + begin, .length = ends[i] - begin};
		uint64_t before = parts.length;

		damaged[i] = !read_look(&parts, &look);
		if (damaged[i])
			parts.length = before;
		out->ends[i] = parts.length;
	}
	*length = parts.length;
	return *length > capacity;
}

/* The index of the first part of a look. */
static uint64_t first_part(const struct ps_looks *looks, uint64_t look)
{
	return look ? looks->ends[look - 1] : 0;
}

/* The index of a block, from `from` on; `count` if it has no place. */
static uint64_t index_of(const struct ps_pages *pages, uint64_t from, uint64_t block)
{
	uint64_t at = block ? next_behind(pages->blocks, from, pages->count, block - 1) : from;

	return at < pages->count && pages->blocks[at] == block ? at : pages->count;
}

int ps_page_blocks(const struct ps_looks *looks, const struct ps_pages *pages, uint64_t *blocks,
		   uint64_t capacity, uint64_t *length)
{
	*length = 0;
	for (uint64_t i = 0; i < looks->count; i++) {
		uint64_t from = 0, behind = 0; /* behind the last block that was looked up */

		for (uint64_t k = first_part(looks, i); k < looks->ends[i]; k++) {
			uint64_t page = later(looks->starts[k], behind);

			for (; page < looks->stops[k]; page = behind) {
				uint64_t block = page / pages->unit;
				uint64_t at = index_of(pages, from, block);

				if (at < pages->count)
					from = at;
				else if ((*length)++ < capacity)
					blocks[*length - 1] = block;
				behind = (block + 1) * pages->unit;
			}
		}
	}
	return *length > capacity;
}

/* Stamps one page; returns 1 if its last stamp is not later than `since`. */
static uint64_t stamp(const struct ps_pages *pages, struct ps_page *page, uint32_t look,
		      uint32_t since)
{
	uint32_t last = page->last;

	if (last == look)
		return 0;
	if (!last)
		page->first = look;
	if (pages->gaps)
		pages->gaps[look - last - 1]++;
	page->count++;
	page->last = look;
	return last <= since;
}

/* Pages that one look has found, one behind the other, and that are not stamped yet. */
struct run {
	struct ps_page *page;
	uint64_t pages;
	uint32_t look;
};

/* A run is stamped after this many others: the processor fetches its pages from memory first. */
#define BEHIND 16u

/* Stamps the pages of a run; returns as `stamp` does, in all. */
static uint64_t stamp_run(const struct ps_pages *pages, const struct run *run, uint32_t since)
{
	uint64_t fresh = 0;

	for (uint64_t i = 0; i < run->pages; i++)
		fresh += stamp(pages, run->page + i, run->look, since);
	return fresh;
}

int ps_stamp(const struct ps_looks *looks, const struct ps_pages *pages, uint32_t number,
	     uint32_t since, uint64_t *fresh)
{
	struct run runs[BEHIND] = {{NULL, 0, 0}};
	uint64_t unit = pages->unit, next = 0;

	*fresh = 0;
	for (uint64_t i = 0; i < looks->count; i++) {
		uint64_t from = 0, first = 0, behind = 0; /* the pages of the present block */
		struct ps_page *block = NULL;

		for (uint64_t k = first_part(looks, i); k < looks->ends[i]; k++) {
			uint64_t start = looks->starts[k], end = looks->stops[k], stop;

			for (; start < end; start = stop) {
				struct run *run = &runs[next++ % BEHIND];

				if (start >= behind) {
					from = index_of(pages, from, start / unit);
					if (from == pages->count)
						return -ENOENT;
					first = start - start % unit;
					behind = first + unit;
					block = pages->pages + pages->places[from] * unit;
				}
				stop = earlier(end, behind);
				*fresh += stamp_run(pages, run, since);
				*run = (struct run){block + (start - first), stop - start,
						    number + (uint32_t)i};
				__builtin_prefetch(run->page, 1);
			}
		}
	}
	for (uint64_t i = 0; i < BEHIND; i++, next++)
		*fresh += stamp_run(pages, &runs[next % BEHIND], since);
	return 0;
}

/* The class of a page: 0 never written, 1 in one look, 4 in more than a share of them, 2 others. */
static uint64_t class_of(const struct ps_page *page, uint32_t looks, uint32_t percent)
{
	uint64_t count = page->count;

	if (count < 2)
		return count;
	return count * 100 > (uint64_t)percent * (looks - page->first + 1) ? 4 : 2;
}

static const struct ps_page *pages_at(const struct ps_pages *pages, uint64_t index)
{
	return pages->pages + pages->places[index] * pages->unit;
}

int ps_page_classes(const struct ps_pages *pages, uint64_t page_size, uint32_t looks,
		    uint32_t percent, struct ps_columns *out)
{
	out->length = 0;
	for (uint64_t i = 0; i < pages->count; i++) {
		const struct ps_page *page = pages_at(pages, i);
		uint64_t at = pages->blocks[i] * pages->unit * page_size;

		for (uint64_t rest = pages->unit; rest; rest--, at += page_size) {
			uint64_t class = class_of(page++, looks, percent);
			uint64_t last = out->length - 1;

			if (!class)
				continue;
			if (out->length && out->length <= out->capacity && out->end[last] == at &&
			    out->categories[last] == class) {
				out->end[last] = at + page_size;
				continue;
			}
			if (out->length++ >= out->capacity)
				continue;
			out->start[last + 1] = at;
			out->end[last + 1] = at + page_size;
			out->categories[last + 1] = class;
		}
	}
	return out->length > out->capacity;
}

int ps_page_ends(const struct ps_pages *pages, uint32_t looks, uint64_t *stretches,
		 uint64_t *found)
{
	*found = 0;
	for (uint64_t i = 0; i < pages->count; i++) {
		const struct ps_page *page = pages_at(pages, i);

		for (uint64_t rest = pages->unit; rest; rest--, page++) {
			if (!page->last)
				continue;
			++*found;
			stretches[looks - page->last]++;
		}
	}
	return 0;
}

int ps_look_shares(const struct ps_looks *looks, const uint64_t *low, const uint64_t *high,
		   uint64_t ranges, uint64_t *bytes, uint64_t *first, uint64_t *last)
{
	for (uint64_t i = 0; i < looks->count; i++) {
		uint64_t range = 0;

		for (uint64_t k = first_part(looks, i); k < looks->ends[i]; k++) {
			uint64_t at = looks->starts[k] * looks->page_size;
			uint64_t end = looks->stops[k] * looks->page_size;

			while (at < end) {
				uint64_t start, stop;

				range = next_behind(high, range, ranges, at);
				if (range == ranges)
					break;
				start = earlier(end, later(at, low[range]));
				stop = earlier(end, high[range]);
				if (start < stop) {
					bytes[range] += stop - start;
					first[range] = earlier(first[range], start);
					last[range] = later(last[range], stop);
				}
				at = stop;
			}
		}
	}
	return 0;
}
