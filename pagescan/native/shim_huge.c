/* SPDX-License-Identifier: MIT */
/*
 * Puts back the huge pages that tracking has split: process_madvise(2) with MADV_COLLAPSE, one huge
 * page per call. The call would fill holes, and copy pages shared with a child, so each unit is
 * checked just before it.
 */
#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pace.h"
#include "page.h"
#include "scan.h"
#include "shim.h"

/* Limit of pagemap words per read. */
#define WORDS 512u
#define REST_MAX_NS 200000000u

/* Whether an aligned huge page is mapped as one; -errno. */
static int is_huge(int pagemap, uint64_t at, uint64_t size)
{
	const struct ps_masks huge = {.mask = PS_PAGE_IS_HUGE, .returned = PS_PAGE_IS_HUGE};
	struct ps_page_region first;

	return ps_first_region(pagemap, at, at + size, &huge, &first);
}

/*
 * Counts the populated pages of the range, with those on swap, and the pages present and unshared.
 */
static int count_pages(int pagemap, uint64_t at, uint64_t size, uint64_t page, uint64_t *populated,
		       uint64_t *ours)
{
	uint64_t words[WORDS];

	*populated = *ours = 0;
	for (uint64_t index = at / page; index < (at + size) / page;) {
		uint64_t left = (at + size) / page - index;
		ssize_t got = pread(pagemap, words, 8 * (left < WORDS ? left : WORDS),
				    (off_t)(8 * index));

		if (got < 0)
			return -errno;
		if (got < 8)
			return -ESRCH; /* the address space is gone */
		for (ssize_t i = 0; i < got / 8; i++) {
			bool guard = words[i] & PS_PM_GUARD;

			*populated += (words[i] & (PS_PM_PRESENT | PS_PM_SWAPPED)) && !guard;
			*ours += (words[i] & PS_PM_PRESENT) && (words[i] & PS_PM_EXCLUSIVE);
		}
		index += (uint64_t)got / 8;
	}
	return 0;
}

int ps_file_pages(int file, uint64_t offset, uint64_t size, uint64_t *in_memory, uint64_t *elsewhere)
{
	struct {
		uint64_t offset, length;
	} range = {offset, size};
	struct {
		uint64_t cache, dirty, writeback, evicted, recently_evicted;
	} found = {0};

	if (syscall(SYS_cachestat, file, &range, &found, 0) < 0)
		return -errno;
	*in_memory = found.cache;
	*elsewhere = found.evicted;
	return 0;
}

/* Returns how many pages of a range the file has in memory if none is on swap; else 0. */
static uint64_t pages_of_file(int file, uint64_t offset, uint64_t size)
{
	uint64_t in_memory = 0, elsewhere = 0;

	if (ps_file_pages(file, offset, size, &in_memory, &elsewhere) < 0 || elsewhere)
		return 0;
	return in_memory;
}

static int collapse(const struct ps_collapse *job, uint64_t at)
{
	struct iovec range = {(void *)(uintptr_t)at, job->size};

	if (job->pidfd < 0)
		return madvise(range.iov_base, range.iov_len, PS_MADV_COLLAPSE) < 0 ? -errno : 0;
	return syscall(SYS_process_madvise, job->pidfd, &range, 1, PS_MADV_COLLAPSE, 0) < 0 ? -errno
										    : 0;
}

/*
 * In that call the kernel waits for a worker on each processor while it holds the lock: on a busy
 * machine this takes many milliseconds. After the call the lock is left alone for twice as long.
 */
static void rest_after(struct ps_pace *pace, struct ps_cost *cost, uint64_t ns)
{
	uint64_t usual = pace->pause_ns, longer = 2 * ns < REST_MAX_NS ? 2 * ns : REST_MAX_NS;

	if (usual && longer > usual)
		pace->pause_ns = longer;
	ps_pace_call(pace, cost, 0, ns);
	pace->pause_ns = usual;
}

/* Puts back one huge page; returns -errno only if it is pointless to go on. */
static int put_back(struct ps_collapse *job, uint64_t page, struct ps_pace *pace, struct ps_cost *cost)
{
	uint64_t before = ps_now_ns(), populated, ours, all = job->size / page;
	int rc = is_huge(job->pagemap, job->at, job->size);

	if (rc == 0)
		rc = count_pages(job->pagemap, job->at, job->size, page, &populated, &ours);
	else if (rc > 0)
		populated = 0;
	if (rc < 0)
		return rc;
	ps_pace_call(pace, cost, 0, ps_now_ns() - before);
	if (job->file >= 0) { /* shared memory: pages that are not mapped now exist all the same */
		uint64_t there = pages_of_file(job->file, job->offset + job->at - job->start, job->size);

		ours = there == all ? all : 0;
		if (rc == 0 && there > populated)
			populated = there;
	}
	if (!populated)
		return 0;
	if (ours == all && !job->refused) {
		before = ps_now_ns();
		rc = collapse(job, job->at);
		job->refused = rc == -EPERM;
		if (rc == -EAGAIN) /* a page was in use by the kernel, or moved */
			collapse(job, job->at);
		if (!job->refused)
			rest_after(pace, cost, ps_now_ns() - before);
		if (rc == -ESRCH)
			return rc;
		if (is_huge(job->pagemap, job->at, job->size) == 1) {
			job->restored += job->size;
			return 0;
		}
	}
	if (ours == all && job->refused)
		job->denied += job->size;
	job->lost += populated * page;
	return 0;
}

int ps_collapse(struct ps_collapse *job, struct ps_pace *pace, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns(), page = ps_page_size();

	for (; job->at + job->size <= job->end; job->at += job->size) {
		int rc;

		if (ps_now_ns() - begun > PS_BREATHER_NS)
			return 1;
		rc = put_back(job, page, pace, cost);
		if (rc < 0)
			return rc;
	}
	return 0;
}
