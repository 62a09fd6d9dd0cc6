/* SPDX-License-Identifier: MIT */
/*
 * A target that grows by 64 KiB every 20 ms, until its input ends:
 *
 *	growing brk|mmap|arenas
 *
 * prints "ready", and at the end how often mremap(2) refused a block because of a border in it
 * (only with mmap; else 0).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#define CHUNK (64u << 10)
#define PAGE 4096u
#define THREADS 4
#define MOST 100000

static char *blocks[MOST];
static size_t count;

static void *more(void *unused)
{
	for (size_t at = 0; at < CHUNK / THREADS; at += 1024) {
		char *block = malloc(1000);

		memset(block, 7, 1000);
	}
	return unused;
}

/* A thread that allocates in its own arena each time that it is released. */
static pthread_barrier_t gate;

static void *allocate(void *unused)
{
	for (;;) {
		pthread_barrier_wait(&gate);
		more(NULL);
		pthread_barrier_wait(&gate);
	}
	return unused;
}

static void grow(const char *how)
{
	char *block;

	if (!strcmp(how, "arenas")) {
		pthread_barrier_wait(&gate);
		pthread_barrier_wait(&gate);
		return;
	}
	if (!strcmp(how, "brk"))
		block = sbrk(CHUNK);
	else
		block = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(block, 7, CHUNK);
	if (count < MOST)
		blocks[count++] = block;
}

/* The kernel reports EFAULT, for a border within a block, before it checks for room. */
static unsigned refused(void)
{
	unsigned faults = 0;

	for (size_t i = 0; i < count; i++) {
		if (mremap(blocks[i], CHUNK, CHUNK + PAGE, 0) != MAP_FAILED)
			mremap(blocks[i], CHUNK + PAGE, CHUNK, 0);
		else if (errno == EFAULT)
			faults++;
	}
	return faults;
}

int main(int argc, char **argv)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	const char *how = argc > 1 ? argv[1] : "brk";
	unsigned faults = 0;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(how, "arenas")) {
		pthread_barrier_init(&gate, NULL, THREADS + 1);
		for (int i = 0; i < THREADS; i++)
			pthread_create(&thread, NULL, allocate, NULL);
	}
	for (int turn = 0; turn < 10; turn++)
		grow(how);
	printf("ready\n");
	fflush(stdout);
	for (int turn = 0; poll(&input, 1, 20) == 0; turn++) {
		grow(how);
		if (turn % 10 == 0 && !strcmp(how, "mmap"))
			faults += refused();
	}
	printf("%u\n", faults);
	return 0;
}
