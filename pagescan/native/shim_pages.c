/* SPDX-License-Identifier: MIT */
/*
 * Counts per page over many looks. The looks stay in their packed form, and are read by one call for
 * thousands of them: see looks.h. The caller makes room for the counts before the looks are counted.
 */
#include <stddef.h>

#include "looks.h"

/* No process has written more between two looks: 8 TiB of pages of 4 KiB. */
#define MOST_PAGES (1ull << 31)

int ps_looks_check(const struct ps_looks *looks, uint64_t *whole)
{
	for (*whole = 0; *whole < looks->count; ++*whole) {
		struct parts in = parts_of(looks, *whole);
		uint64_t pages = 0;
		int more;

		while ((more = next_region(&in.look, in.most)) > 0) {
			pages += in.look.end - in.look.start;
			if (pages > MOST_PAGES)
				return 0;
		}
		if (more < 0)
			return 0;
	}
	return 0;
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
		struct parts in = parts_of(looks, i);
		uint64_t start, end, from = 0, last = UINT64_MAX;

		while (next_part(&in, &start, &end)) {
			uint64_t stop = (end - 1) / pages->unit;

			for (uint64_t block = start / pages->unit; block <= stop; block++) {
				uint64_t at = block == last ? from : index_of(pages, from, block);

				if (block != last && at == pages->count && (*length)++ < capacity)
					blocks[*length - 1] = block;
				if (at < pages->count)
					from = at;
				last = block;
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
		struct parts in = parts_of(looks, i);
		uint64_t start, end, from = 0;

		while (next_part(&in, &start, &end)) {
			while (start < end) {
				uint64_t stop = earlier(end, (start / unit + 1) * unit);
				struct run *run = &runs[next++ % BEHIND];

				from = index_of(pages, from, start / unit);
				if (from == pages->count)
					return -ENOENT;
				*fresh += stamp_run(pages, run, since);
				run->page = pages->pages + pages->places[from] * unit +
					    start % unit;
				run->pages = stop - start;
				run->look = number + (uint32_t)i;
				__builtin_prefetch(run->page, 1);
				start = stop;
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

int ps_look_shares(const struct ps_looks *looks, const uint64_t *starts, const uint64_t *ends,
		   uint64_t ranges, uint64_t *bytes)
{
	for (uint64_t i = 0; i < looks->count; i++) {
		struct parts in = parts_of(looks, i);
		uint64_t at, end, range = 0;

		while (next_part(&in, &at, &end)) {
			at *= looks->page_size;
			end *= looks->page_size;
			while (at < end) {
				uint64_t low, high;

				range = next_behind(ends, range, ranges, at);
				if (range == ranges)
					break;
				low = earlier(end, later(at, starts[range]));
				high = earlier(end, ends[range]);
				if (low < high)
					bytes[range] += high - low;
				at = high;
			}
		}
	}
	return 0;
}
