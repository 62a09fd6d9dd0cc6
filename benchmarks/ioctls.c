/* SPDX-License-Identifier: MIT */
/*
 * ioctls PID START END: the loop that a C program would write around PAGEMAP_SCAN, and nothing
 * else. Obeys lines, answers {"ns": …, "regions": …}:
 *
 *	get		lists the written pages
 *	get 2		the same in two threads, one half of the pages each
 *	protect		protects the present pages, lists nothing
 *	get+protect	lists the written pages and protects them, in one step
 *	exact get	lists exactly the written pages, with the usual categories
 *	exact get+protect	the same, and protects them
 *	pagemap		reads /proc/PID/pagemap and counts the present pages
 */
#define _GNU_SOURCE
#include "answer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define VEC 512
#define CHUNK (1u << 20)

static uint64_t words[CHUNK / 8];

struct question {
	uint64_t mask, inverted, anyof, returned;
};

/* The query for exactly written private anonymous memory: written, populated, no zero page, no
 * guard. */
static const struct question exact = {
	.mask = BENCH_WPALLOWED | BENCH_WRITTEN | BENCH_PFNZERO | BENCH_GUARD,
	.inverted = BENCH_PFNZERO | BENCH_GUARD,
	.anyof = BENCH_PRESENT | BENCH_SWAPPED,
	.returned = BENCH_WPALLOWED | BENCH_WRITTEN | BENCH_FILE | BENCH_PRESENT | BENCH_SWAPPED |
		    BENCH_PFNZERO | BENCH_GUARD,
};

static long ask(int pagemap, uint64_t start, uint64_t end, uint64_t flags, struct question what)
{
	struct bench_region vec[VEC];
	long regions = 0;

	while (start < end) {
		struct bench_scan arg = {
			.size = sizeof(arg),
			.flags = flags,
			.start = start,
			.end = end,
			.vec = (uintptr_t)vec,
			.vec_len = VEC,
			.inverted = what.inverted,
			.mask = what.mask,
			.anyof = what.anyof,
			.returned = what.returned,
		};
		int found = ioctl(pagemap, BENCH_SCAN, &arg);

		if (found < 0)
			return -1;
		regions += found;
		/* A complete scan may report an earlier walk_end. */
		if (found && vec[found - 1].end > arg.walk_end)
			arg.walk_end = vec[found - 1].end;
		if (arg.walk_end <= start)
			return -1;
		start = arg.walk_end;
	}
	return regions;
}

static long scan(int pagemap, uint64_t start, uint64_t end, uint64_t flags, uint64_t category)
{
	return ask(pagemap, start, end, flags,
		   (struct question){.mask = category, .returned = category});
}

struct half {
	int pagemap;
	uint64_t start, end;
	long regions;
};

static void *scan_half(void *given)
{
	struct half *half = given;

	half->regions = scan(half->pagemap, half->start, half->end, 0, BENCH_WRITTEN);
	return NULL;
}

static long scan_by_two(int pagemap, uint64_t start, uint64_t end)
{
	uint64_t middle = start + (end - start) / 2 / 4096 * 4096;
	struct half halves[] = {{pagemap, start, middle, 0}, {pagemap, middle, end, 0}};
	pthread_t thread;

	if (pthread_create(&thread, NULL, scan_half, &halves[1]))
		return -1;
	scan_half(&halves[0]);
	pthread_join(thread, NULL);
	if (halves[0].regions < 0 || halves[1].regions < 0)
		return -1;
	return halves[0].regions + halves[1].regions;
}

static long read_words(int pagemap, uint64_t start, uint64_t end)
{
	long present = 0;

	for (uint64_t at = start / 4096 * 8; at < end / 4096 * 8;) {
		uint64_t left = end / 4096 * 8 - at;
		ssize_t got = pread(pagemap, words, left < CHUNK ? left : CHUNK, (off_t)at);

		if (got <= 0)
			return -1;
		for (ssize_t i = 0; i < got / 8; i++)
			present += words[i] >> 63;
		at += (uint64_t)got;
	}
	return present;
}

int main(int argc, char **argv)
{
	uint64_t start, end;
	char path[64], line[64];
	int pagemap;

	if (argc != 4)
		return 2;
	prctl(PR_SET_PDEATHSIG, 9);
	start = strtoull(argv[2], NULL, 0);
	end = strtoull(argv[3], NULL, 0);
	snprintf(path, sizeof(path), "/proc/%s/pagemap", argv[1]);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0) {
		answer("{\"error\": \"ioctls: %s\"}\n", strerror(errno));
		return 1;
	}
	answer("{}\n");
	while (fgets(line, sizeof(line), stdin)) {
		uint64_t begun = now_ns();
		long regions = -1;

		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "get"))
			regions = scan(pagemap, start, end, 0, BENCH_WRITTEN);
		else if (!strcmp(line, "get 2"))
			regions = scan_by_two(pagemap, start, end);
		else if (!strcmp(line, "protect"))
			regions = scan(pagemap, start, end, BENCH_WP_MATCHING, BENCH_PRESENT);
		else if (!strcmp(line, "get+protect"))
			regions = scan(pagemap, start, end, BENCH_WP_MATCHING, BENCH_WRITTEN);
		else if (!strcmp(line, "exact get"))
			regions = ask(pagemap, start, end, 0, exact);
		else if (!strcmp(line, "exact get+protect"))
			regions = ask(pagemap, start, end, BENCH_WP_MATCHING, exact);
		else if (!strcmp(line, "pagemap"))
			regions = read_words(pagemap, start, end);
		if (regions < 0)
			answer("{\"error\": \"ioctls: %s: %s\"}\n", line, strerror(errno));
		else
			answer("{\"ns\": %lu, \"regions\": %ld}\n", now_ns() - begun, regions);
	}
	return 0;
}
