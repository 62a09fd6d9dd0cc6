/* SPDX-License-Identifier: MIT */
/* Shared by the programs here: a clock, kernel constants, and one line of JSON per answer. */
#ifndef BENCHMARKS_ANSWER_H
#define BENCHMARKS_ANSWER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>

/* linux/fs.h, Linux 6.7: installed headers may be older. */
struct bench_region {
	uint64_t start, end, categories;
};

struct bench_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, returned;
};

#define BENCH_SCAN _IOWR('f', 16, struct bench_scan)
#define BENCH_WPALLOWED 1u
#define BENCH_WRITTEN 2u
#define BENCH_FILE 4u
#define BENCH_PRESENT 8u
#define BENCH_SWAPPED 16u
#define BENCH_PFNZERO 32u
#define BENCH_GUARD 256u
#define BENCH_WP_MATCHING 1u

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#define answer(...) (printf(__VA_ARGS__), fflush(stdout))

/* All of [0, pages) once, in a scattered order: an odd step over a power of two. */
static inline size_t scattered(size_t step, size_t pages)
{
	return step * 2654435761u & (pages - 1);
}

#endif
