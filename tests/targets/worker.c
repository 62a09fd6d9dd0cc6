/* SPDX-License-Identifier: MIT */
/*
 * A target that never rests and notices any harm.
 *
 *	worker THREADS PAGES
 *
 * Each thread fills its own pages, checks that they hold what it stored, makes system calls that
 * block, and carries a predictable sum through all of it, in registers. On a difference it prints a
 * message and exits with code 1. A line on stdin is answered "ok ROUNDS"; the end of input ends it.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define STEPS 2000u

static size_t pages;
static atomic_ulong rounds;

static void fail(const char *what)
{
	fprintf(stderr, "worker: %s is wrong\n", what);
	_exit(1);
}

/* x -> 6364136223846793005 x + 1442695040888963407, many times, with a known result. */
static uint64_t step(uint64_t x, double *real)
{
	for (unsigned i = 0; i < STEPS; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		*real = *real * 0.5 + 1.0;
	}
	return x;
}

static void one_round(uint64_t *memory, uint64_t round)
{
	struct timespec nap = {0, 20000};
	double real = 0.0, same = 0.0;
	uint64_t sum = step(round, &real);
	size_t words = pages * PAGE / sizeof(*memory);
	int nothing;

	for (size_t i = 0; i < words; i += 61)
		memory[i] = sum ^ i;
	nothing = round % 2 ? poll(NULL, 0, 1) : clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	if (nothing) /* both are restarted after a stop */
		fail("the result of a system call");
	for (size_t i = 0; i < words; i += 61)
		if (memory[i] != (sum ^ i))
			fail("what memory holds");
	if (step(round, &same) != sum || same != real)
		fail("a sum");
	atomic_fetch_add(&rounds, 1);
}

static void *work(void *argument)
{
	uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	for (uint64_t round = (uintptr_t)argument;; round++)
		one_round(memory, round);
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 2;
	char line[64];

	pages = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, work, (void *)(uintptr_t)(i * 1000003)))
			return 1;
	}
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		printf("ok %lu\n", (unsigned long)atomic_load(&rounds));
		fflush(stdout);
	}
	return 0;
}
