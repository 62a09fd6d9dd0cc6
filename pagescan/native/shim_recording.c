/* SPDX-License-Identifier: MIT */
/*
 * Looks in recordings: the packed form of a look's regions, and counts per page over many looks.
 *
 * The packed form is a row of numbers, 7 bits per byte, the lowest first; the top bit of a byte says
 * that more follow. Each region is the number of pages between it and the previous one, then its
 * pages less one, doubled; that is odd if a third number follows: categories that are not those of
 * the previous region. They are 0 before the first region.
 */
#include <errno.h>
#include <stddef.h>

#include "shim.h"

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

struct reader {
	const uint8_t *bytes;
	uint64_t length;
	uint64_t at;
	int broken;
};

static uint64_t get(struct reader *in)
{
	uint64_t number = 0;

	for (unsigned shift = 0; shift < 63 && in->at < in->length; shift += 7) {
		uint8_t byte = in->bytes[in->at++];

		number |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return number;
	}
	in->broken = 1;
	return 0;
}

int ps_unpack(const uint8_t *bytes, uint64_t length, uint64_t page_size, struct ps_columns *out)
{
	struct reader in = {bytes, length, 0, 0};
	uint64_t at = 0, categories = 0, room = UINT64_MAX / page_size;

	out->length = 0;
	while (in.at < length) {
		uint64_t gap = get(&in), size = get(&in), start;

		if (size & 1)
			categories = get(&in);
		size = (size >> 1) + 1;
		if (in.broken || gap > room || size > room - gap)
			return -EBADMSG;
		room -= gap + size;
		start = at + gap * page_size;
		at = start + size * page_size;
		if (out->length < out->capacity) {
			out->start[out->length] = start;
			out->end[out->length] = at;
			out->categories[out->length] = categories;
		}
		out->length++;
	}
	return out->length > out->capacity;
}

/* Stamps one page; returns 1 if its last stamp is not later than `since`. */
static uint64_t stamp(const struct ps_pages *pages, uint64_t page, uint32_t look, uint32_t since)
{
	uint32_t last = pages->last[page];

	if (last == look)
		return 0;
	if (!last)
		pages->first[page] = look;
	pages->gaps[look - last - 1]++;
	pages->count[page]++;
	pages->last[page] = look;
	return last <= since;
}

int ps_stamp(const struct ps_columns *regions, const struct ps_pages *pages, uint32_t look,
	     uint32_t since, uint64_t *fresh)
{
	uint64_t range = 0, base = 0, size = pages->page_size;

	*fresh = 0;
	for (uint64_t i = 0; i < regions->length; i++) {
		for (uint64_t at = regions->start[i]; at < regions->end[i]; at += size) {
			while (range < pages->ranges && pages->ends[range] <= at) {
				base += (pages->ends[range] - pages->starts[range]) / size;
				range++;
			}
			if (range == pages->ranges)
				return 0;
			if (pages->starts[range] <= at)
				*fresh += stamp(pages, base + (at - pages->starts[range]) / size,
						look, since);
		}
	}
	return 0;
}

/* The class of a page: 0 never written, 1 in one look, 4 in more than a share of them, 2 others. */
static uint64_t class_of(const struct ps_pages *pages, uint64_t page, uint32_t looks,
			 uint32_t percent)
{
	uint64_t count = pages->count[page];

	if (count < 2)
		return count;
	return count * 100 > (uint64_t)percent * (looks - pages->first[page] + 1) ? 4 : 2;
}

int ps_page_classes(const struct ps_pages *pages, uint32_t looks, uint32_t percent,
		    struct ps_columns *out)
{
	uint64_t page = 0, size = pages->page_size;

	out->length = 0;
	for (uint64_t range = 0; range < pages->ranges; range++) {
		for (uint64_t at = pages->starts[range]; at < pages->ends[range]; at += size) {
			uint64_t class = class_of(pages, page++, looks, percent);
			uint64_t last = out->length - 1;

			if (!class)
				continue;
			if (out->length && out->length <= out->capacity && out->end[last] == at &&
			    out->categories[last] == class) {
				out->end[last] = at + size;
				continue;
			}
			if (out->length++ >= out->capacity)
				continue;
			out->start[last + 1] = at;
			out->end[last + 1] = at + size;
			out->categories[last + 1] = class;
		}
	}
	return out->length > out->capacity;
}

int ps_widen(const struct ps_columns *regions, uint64_t unit, struct ps_columns *out)
{
	out->length = 0;
	for (uint64_t i = 0; i < regions->length; i++) {
		uint64_t start = regions->start[i] - regions->start[i] % unit;
		uint64_t end = regions->end[i] + (unit - regions->end[i] % unit) % unit;
		uint64_t last = out->length - 1;

		if (out->length && out->end[last] >= start) {
			out->end[last] = end;
			continue;
		}
		if (out->length++ >= out->capacity)
			return 1;
		out->start[last + 1] = start;
		out->end[last + 1] = end;
		out->categories[last + 1] = 0;
	}
	return 0;
}
