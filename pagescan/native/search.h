/* SPDX-License-Identifier: MIT */
/* Finds ranges in lists that ascend and are disjoint. */
#ifndef PAGESCAN_SEARCH_H
#define PAGESCAN_SEARCH_H

#include <stdint.h>

static inline uint64_t earlier(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

static inline uint64_t later(uint64_t one, uint64_t other)
{
	return one > other ? one : other;
}

/* The first index from `from` on whose end lies behind `at`, in steps that double; else count. */
static inline uint64_t next_behind(const uint64_t *ends, uint64_t from, uint64_t count, uint64_t at)
{
	uint64_t low = from, step = 1;

	while (low < count && ends[low] <= at) {
		from = low + 1;
		low += step;
		step *= 2;
	}
	low = earlier(low, count);
	while (from < low) {
		uint64_t middle = from + (low - from) / 2;

		if (ends[middle] <= at)
			from = middle + 1;
		else
			low = middle;
	}
	return from;
}

#endif
