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

/* Takes pages that one look has found, one behind the other in one block, from a place on. */
typedef void take_run(void *to, uint64_t place, uint64_t pages, uint64_t look);

/*
 * Hands over all pages of looks, from look `from` on. Returns the look that has a page in a block
 * without a place: its pages before that one are handed over. Else returns the number of looks.
 */
static inline __attribute__((always_inline)) int64_t each_run(const struct ps_looks *looks,
							      const struct ps_pages *pages,
							      uint64_t from, take_run *take, void *to)
{
	uint64_t unit = pages->unit;

	for (uint64_t i = from; i < looks->count; i++) {
		uint64_t index = 0, first = 0, behind = 0, place = 0; /* of the present block */

		for (uint64_t k = first_part(looks, i); k < looks->ends[i]; k++) {
			uint64_t start = looks->starts[k], end = looks->stops[k], stop;

			for (; start < end; start = stop) {
				if (start >= behind) {
					index = index_of(pages, index, start / unit);
					if (index == pages->count)
						return (int64_t)i;
					first = start - start % unit;
					behind = first + unit;
					place = pages->places[index] * unit;
				}
				stop = earlier(end, behind);
				take(to, place + (start - first), stop - start, i);
			}
		}
	}
	return (int64_t)looks->count;
}

/* Pages that one look has found, and that are not stamped yet. */
struct run {
	struct ps_page *page;
	uint64_t pages;
	uint32_t look;
};

/* A run is stamped after this many others: the processor fetches its pages from memory first. */
#define BEHIND 16u

struct stamps {
	const struct ps_pages *pages;
	uint32_t number; /* of the first look */
	uint32_t since;
	uint64_t fresh;
	uint64_t next;
	struct run runs[BEHIND];
};

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

/* Stamps the run that waits longest; another one takes its place. */
static inline void stamp_run(struct stamps *stamps, struct run next)
{
	struct run *run = &stamps->runs[stamps->next++ % BEHIND];

	for (uint64_t i = 0; i < run->pages; i++)
		stamps->fresh += stamp(stamps->pages, run->page + i, run->look, stamps->since);
	*run = next;
}

static inline void stamp_later(void *to, uint64_t place, uint64_t pages, uint64_t look)
{
	struct stamps *stamps = to;
	struct ps_page *page = stamps->pages->pages + place;

	stamp_run(stamps, (struct run){page, pages, stamps->number + (uint32_t)look});
	__builtin_prefetch(page, 1);
}

int64_t ps_stamp(const struct ps_looks *looks, const struct ps_pages *pages, uint64_t from,
		 uint32_t number, uint32_t since, uint64_t *fresh)
{
	struct stamps stamps = {.pages = pages, .number = number, .since = since};
	int64_t look = each_run(looks, pages, from, stamp_later, &stamps);

	for (uint64_t i = 0; i < BEHIND; i++)
		stamp_run(&stamps, (struct run){NULL, 0, 0});
	*fresh += stamps.fresh;
	return look;
}

static inline void mark(void *to, uint64_t place, uint64_t pages, uint64_t look)
{
	uint64_t *bits = to;

	(void)look;
	for (uint64_t i = place; i < place + pages; i++)
		bits[i / 64] |= 1ull << i % 64;
}

int64_t ps_mark(const struct ps_looks *looks, const struct ps_pages *pages, uint64_t from,
		uint64_t *bits)
{
	return each_run(looks, pages, from, mark, bits);
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

int ps_marked(const struct ps_pages *pages, const uint64_t *bits, uint64_t page_size,
	      struct ps_columns *out)
{
	uint64_t end = 0; /* of the last region */

	out->length = 0;
	for (uint64_t i = 0; i < pages->count; i++) {
		uint64_t bit = pages->places[i] * pages->unit;
		uint64_t at = pages->blocks[i] * pages->unit * page_size;

		for (uint64_t rest = pages->unit; rest; rest--, bit++, at += page_size) {
			if (!(bits[bit / 64] >> bit % 64 & 1))
				continue;
			if ((!out->length || end != at) && out->length++ < out->capacity) {
				out->start[out->length - 1] = at;
				out->categories[out->length - 1] = 0;
			}
			end = at + page_size;
			if (out->length <= out->capacity)
				out->end[out->length - 1] = end;
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
