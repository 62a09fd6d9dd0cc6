/* SPDX-License-Identifier: MIT */
/* Copy-on-write: which samples are first writes to shared pages, and which pages two sides share. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "page.h"
#include "shim.h"

#define PRESENT (1ull << 63)
#define OF_FILE (1ull << 61)
#define EXCLUSIVE (1ull << 56)
#define FRAME ((1ull << 55) - 1)
#define WORDS 4096

/* The last region that starts at or below an address; -1: none. */
static int64_t region_at(const struct ps_columns *regions, uint64_t address)
{
	int64_t low = 0, high = (int64_t)regions->length;

	while (low < high) {
		int64_t middle = low + (high - low) / 2;

		if (regions->start[middle] <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

int64_t ps_copies_mark(const struct ps_columns *shared, const uint64_t *first_page,
		       const struct ps_faults *samples, const struct ps_side *side, uint8_t *bitmap,
		       uint8_t *verdicts)
{
	uint64_t page_size = ps_page_size();
	int64_t copies = 0;

	for (int64_t i = 0; i < samples->length; i++) {
		uint64_t address = samples->address[i], page;
		int64_t at;

		verdicts[i] = PS_NOT_OF_SIDE;
		if (samples->thread[i] >> 32 != side->pid || samples->time[i] < side->since ||
		    samples->time[i] >= side->until)
			continue;
		verdicts[i] = PS_NEW_PAGE;
		at = region_at(shared, address);
		if (at < 0 || address >= shared->end[at])
			continue;
		page = first_page[at] + (address - shared->start[at]) / page_size;
		verdicts[i] = PS_COPIED_BEFORE;
		if (bitmap[page / 8] >> page % 8 & 1)
			continue;
		bitmap[page / 8] |= (uint8_t)(1u << page % 8);
		verdicts[i] = PS_COPIED;
		copies++;
	}
	return copies;
}

static int read_words(int pagemap, uint64_t start, uint64_t pages, uint64_t *words)
{
	ssize_t got = pread(pagemap, words, pages * 8, (off_t)(start / ps_page_size() * 8));

	if (got < 0)
		return -errno;
	memset((uint8_t *)words + got, 0, pages * 8 - (size_t)got);
	return 0;
}

/*
 * Whether two entries of private memory are one page. Where the kernel hides the frames, a page that
 * is exclusive to neither side counts as shared: exact for one child.
 */
static int are_one(uint64_t one, uint64_t other)
{
	if (one & FRAME || other & FRAME)
		return (one & FRAME) == (other & FRAME);
	return !((one | other) & EXCLUSIVE);
}

/* Adds a page to the last region if it follows on. */
static int add_page(struct ps_columns *out, uint64_t address)
{
	uint64_t size = ps_page_size();

	if (out->length && out->end[out->length - 1] == address) {
		out->end[out->length - 1] += size;
		return 0;
	}
	if (out->length == out->capacity)
		return -ENOBUFS;
	out->start[out->length] = address;
	out->end[out->length] = address + size;
	out->categories[out->length++] = 0;
	return 0;
}

/* Compares one stretch of memory of at most WORDS pages. */
static int compare(int parent, int child, uint64_t start, uint64_t pages, struct ps_columns *shared,
		   struct ps_comparison *counts)
{
	uint64_t ours[WORDS], theirs[WORDS];
	int rc;

	if ((rc = read_words(parent, start, pages, ours)) < 0 ||
	    (rc = read_words(child, start, pages, theirs)) < 0)
		return rc;
	for (uint64_t k = 0; k < pages; k++) {
		if (!(ours[k] & theirs[k] & PRESENT) || (ours[k] | theirs[k]) & OF_FILE)
			counts->unknown++;
		else if (!are_one(ours[k], theirs[k]))
			counts->copied++;
		else if ((rc = add_page(shared, start + k * ps_page_size())) < 0)
			return rc;
		else
			counts->shared++;
	}
	return 0;
}

int ps_copies_compare(int parent, int child, const struct ps_columns *both, struct ps_columns *shared,
		      struct ps_comparison *counts)
{
	uint64_t size = ps_page_size();

	for (uint64_t i = 0; i < both->length; i++) {
		for (uint64_t at = both->start[i]; at < both->end[i]; at += WORDS * size) {
			uint64_t pages = (both->end[i] - at) / size;
			int rc;

			if (pages > WORDS)
				pages = WORDS;
			if ((rc = compare(parent, child, at, pages, shared, counts)) < 0)
				return rc;
		}
	}
	return 0;
}
