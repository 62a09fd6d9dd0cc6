/* SPDX-License-Identifier: MIT */
/*
 * load random|sequential BYTES: works endlessly on BYTES of populated memory. One unit of work
 * writes 800 bytes of a page, random or the next one, reads eight random cache lines, and computes
 * for a while: about the work of a server for one request.
 *
 * Each line on stdin is answered with {"count", "cpu_ns"}: the units done so far, and the processor
 * time of the thread that does them.
 */
#define _GNU_SOURCE
#include "answer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define PAGE 4096u
#define STORE 800u
#define READS 8
#define STEPS 400
#define HOT 32768u /* numbers: 256 KiB */

static _Atomic uint64_t count;
static clockid_t worker_clock;

static void *answer_lines(void *unused)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin)) {
		struct timespec now;
		uint64_t done = atomic_load(&count);

		clock_gettime(worker_clock, &now);
		answer("{\"count\": %lu, \"cpu_ns\": %lu}\n", done,
		       (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	}
	exit(0);
	return unused;
}

static uint64_t random_number(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

int main(int argc, char **argv)
{
	static uint64_t hot[HOT];
	uint64_t at = 0, sum = 0;
	unsigned char *memory;
	size_t bytes, pages;
	pthread_t thread;
	int sequential;

	if (argc != 3)
		return 2;
	sequential = !strcmp(argv[1], "sequential");
	bytes = strtoull(argv[2], NULL, 10);
	pages = bytes / PAGE;
	prctl(PR_SET_PDEATHSIG, 9);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	memset(memory, 1, bytes);
	for (size_t i = 0; i < HOT; i++)
		hot[i] = random_number();
	pthread_getcpuclockid(pthread_self(), &worker_clock);
	answer("{\"start\": %lu, \"end\": %lu}\n", (uintptr_t)memory, (uintptr_t)memory + bytes);
	pthread_create(&thread, NULL, answer_lines, NULL);

	for (;;) {
		size_t page = sequential ? at % pages : random_number() % pages;

		memset(memory + page * PAGE + (at % 50) * 64, (int)at, STORE);
		for (int i = 0; i < READS; i++)
			sum += memory[random_number() % pages * PAGE + (at & 63) * 64];
		for (int i = 0; i < STEPS; i++) {
			uint64_t number = hot[(at * STEPS + (uint64_t)i * 8) % HOT];

			sum += number & 1 ? number : number * 3;
		}
		hot[at % HOT] ^= sum & 2;
		atomic_store_explicit(&count, ++at, memory_order_relaxed);
	}
}
