/* SPDX-License-Identifier: MIT */
/* Copy-on-write: which samples are first writes to shared pages, and which pages two sides share. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
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

#define FEW_WORDS 512
#define STRIDE (FEW_WORDS + 8) /* words of one process; a power of two would share few cache lines */

/* The frames met at one address; a slot whose round is another one is empty. */
struct frames {
	uint64_t *frame, *round;
	uint64_t now;
	unsigned bits;
};

/* Adds a frame; returns whether it is new at this address. */
static int is_new(struct frames *met, uint64_t frame)
{
	uint64_t slot = frame * 0x9e3779b97f4a7c15ull >> (64 - met->bits);

	while (met->round[slot] == met->now && met->frame[slot] != frame)
		slot = (slot + 1) & ((1ull << met->bits) - 1);
	if (met->round[slot] == met->now)
		return 0;
	met->round[slot] = met->now;
	met->frame[slot] = frame;
	return 1;
}

/* How many different pages some processes have at one address, less one: the copies. */
static uint64_t copies_at(const uint64_t *words, uint32_t count, struct frames *met)
{
	uint64_t unlike = 0, one_is_shared = 0, last = 0;

	met->now++;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = words[(uint64_t)i * STRIDE], frame = word & FRAME;

		if (!(word & PRESENT) || word & OF_FILE)
			continue;
		if (!frame) { /* hidden from this user */
			if (word & EXCLUSIVE)
				unlike++;
			else
				one_is_shared = 1;
		} else if (frame != last) {
			unlike += (uint64_t)is_new(met, frame);
			last = frame;
		}
	}
	unlike += one_is_shared;
	return unlike ? unlike - 1 : 0;
}

int ps_copies_count(const int *pagemaps, uint32_t count, const struct ps_columns *regions,
		    uint64_t *copies)
{
	uint64_t size = ps_page_size(), slots, *words;
	struct frames met = {.bits = 1};
	int rc = 0;

	while (1ull << met.bits < 2ull * count)
		met.bits++;
	slots = 1ull << met.bits;
	words = calloc((uint64_t)count * STRIDE + 2 * slots, 8);
	if (!words)
		return -ENOMEM;
	met.frame = words + (uint64_t)count * STRIDE;
	met.round = met.frame + slots;
	*copies = 0;
	for (uint64_t i = 0; rc == 0 && i < regions->length; i++) {
		for (uint64_t at = regions->start[i]; rc == 0 && at < regions->end[i]; at += FEW_WORDS * size) {
			uint64_t pages = (regions->end[i] - at) / size;

			if (pages > FEW_WORDS)
				pages = FEW_WORDS;
			for (uint32_t k = 0; rc == 0 && k < count; k++)
				rc = read_words(pagemaps[k], at, pages, words + (uint64_t)k * STRIDE);
			for (uint64_t k = 0; rc == 0 && k < pages; k++)
				*copies += copies_at(words + k, count, &met);
		}
	}
	free(words);
	return rc;
}
