/* SPDX-License-Identifier: MIT */
/*
 * Looks in recordings: the packed form of a look's regions, and several looks joined in that form.
 *
 * The packed form is a row of numbers, 7 bits per byte, the lowest first; the top bit of a byte says
 * that more follow. Each region is the number of pages between it and the previous one, then its
 * pages less one, doubled; that is odd if a third number follows: categories that are not those of
 * the previous region. They are 0 before the first region.
 */
#include <errno.h>
#include <stddef.h>

#include "packed.h"

struct writer {
	uint8_t *bytes;
	uint64_t capacity;
	uint64_t length;
};

static void put(struct writer *out, uint64_t number)
{
	do {
		uint8_t byte = number & 0x7f;

		number >>= 7;
		if (out->length < out->capacity)
			out->bytes[out->length] = number ? byte | 0x80 : byte;
		out->length++;
	} while (number);
}

int64_t ps_pack(const struct ps_columns *regions, uint64_t page_size, uint8_t *bytes,
		uint64_t capacity)
{
	struct writer out = {bytes, capacity, 0};
	uint64_t at = 0, categories = 0;

	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t pages = (regions->end[i] - regions->start[i]) / page_size;
		uint64_t changed = regions->categories[i] != categories;

		put(&out, (regions->start[i] - at) / page_size);
		put(&out, (pages - 1) << 1 | changed);
		categories = regions->categories[i];
		if (changed)
			put(&out, categories);
		at = regions->end[i];
	}
	return (int64_t)out.length;
}

int ps_unpack(const uint8_t *bytes, uint64_t length, uint64_t page_size, struct ps_columns *out)
{
	struct ps_packed look = {.bytes = bytes, .length = length};
	int more;

	out->length = 0;
	while ((more = next_region(&look, UINT64_MAX / page_size)) > 0) {
		if (out->length < out->capacity) {
			out->start[out->length] = look.start * page_size;
			out->end[out->length] = look.end * page_size;
			out->categories[out->length] = look.categories;
		}
		out->length++;
	}
	return more ? more : out->length > out->capacity;
}

/*
 * Restores the order of a heap whose first element may be too large: the lowest start is first. Which
 * of two children is lower cannot be foreseen, so no branch asks.
 */
static void sift(struct ps_head *heap, uint64_t length, uint64_t at)
{
	struct ps_head moved = heap[at];

	for (uint64_t child = 2 * at + 1; child < length; child = 2 * at + 1) {
		child += child + 1 < length && heap[child + 1].start < heap[child].start;
		if (moved.start <= heap[child].start)
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moved;
}

/* An output in the packed form, and its last row, which may still grow; pages 0: no such row. */
struct rows {
	struct writer out;
	uint64_t unit;
	uint64_t at; /* the page behind the last row that was put */
	uint64_t put_categories;
	uint64_t start;
	uint64_t pages;
	uint64_t categories;
	uint64_t regions;
};

static void put_row(struct rows *rows)
{
	uint64_t changed = rows->categories != rows->put_categories;

	if (!rows->pages)
		return;
	put(&rows->out, rows->start - rows->at);
	put(&rows->out, (rows->pages - 1) << 1 | changed);
	if (changed)
		put(&rows->out, rows->categories);
	rows->put_categories = rows->categories;
	rows->at = rows->start + rows->pages;
	rows->pages = 0;
	rows->regions++;
}

static void add_row(struct rows *rows, uint64_t start, uint64_t pages, uint64_t categories)
{
	if (rows->pages && rows->start + rows->pages == start && rows->categories == categories) {
		rows->pages += pages;
		return;
	}
	put_row(rows);
	rows->start = start;
	rows->pages = pages;
	rows->categories = categories;
}

/* Adds pages that are not in the rows: to the unit that is counted, or to those behind it. */
static void add_pages(struct rows *rows, uint64_t *unit, uint64_t *count, uint64_t start,
		      uint64_t end)
{
	while (start < end) {
		uint64_t first = start - start % rows->unit, stop = first + rows->unit;

		if (*count && *unit != first) {
			add_row(rows, *unit, rows->unit, *count);
			*count = 0;
		}
		if (!*count && first == start && stop <= end) { /* whole units are one row */
			stop = end - end % rows->unit;
			add_row(rows, start, stop - start, rows->unit);
			start = stop;
			continue;
		}
		if (stop > end)
			stop = end;
		*unit = first;
		*count += stop - start;
		start = stop;
	}
}

int64_t ps_join_packed(const uint8_t *bytes, const uint64_t *ends, uint64_t looks, uint64_t unit,
		       struct ps_packed *packed, struct ps_head *heap, uint8_t *out,
		       uint64_t capacity, uint64_t *regions)
{
	struct rows rows = {.out = {out, capacity, 0}, .unit = unit};
	uint64_t begin = 0, length = 0, behind = 0, place = 0, count = 0;
	int more;

	for (uint64_t i = 0; i < looks; begin = ends[i++]) {
		packed[i] = (struct ps_packed){.bytes = bytes + begin, .length = ends[i] - begin};
		more = next_region(&packed[i], PS_MOST_PAGES);
		if (more < 0)
			return more;
		if (more)
			heap[length++] = (struct ps_head){packed[i].start, i};
	}
	for (uint64_t i = length / 2; i-- > 0;)
		sift(heap, length, i);
	while (length) {
		struct ps_packed *look = &packed[heap->look];
		uint64_t start = look->start > behind ? look->start : behind;

		if (unit > 1)
			add_pages(&rows, &place, &count, start, look->end);
		else if (start < look->end)
			add_row(&rows, start, look->end - start, 0);
		if (look->end > behind)
			behind = look->end;
		more = next_region(look, PS_MOST_PAGES);
		if (more < 0)
			return more;
		if (more)
			heap->start = look->start;
		else
			heap[0] = heap[--length];
		if (length)
			sift(heap, length, 0);
	}
	if (count)
		add_row(&rows, place, unit, count);
	put_row(&rows);
	*regions = rows.regions;
	return (int64_t)rows.out.length;
}
