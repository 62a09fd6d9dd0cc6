/* SPDX-License-Identifier: MIT */
#ifndef PAGESCAN_CLOCK_H
#define PAGESCAN_CLOCK_H

#include <stdint.h>
#include <time.h>

/* The monotonic clock in nanoseconds. */
static inline uint64_t ps_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
