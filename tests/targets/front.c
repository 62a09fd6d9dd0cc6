/* SPDX-License-Identifier: MIT */
/*
 * A target that writes each page once, one after the other, and says when.
 *
 *	front PAGES FILE PAUSE_US
 *
 * FILE gets two numbers per page: the times (CLOCK_REALTIME, ns) before the store and after it; 0:
 * not written yet. It prints the address of the pages, and writes until stdin ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

int main(int argc, char **argv)
{
	size_t pages = strtoul(argv[1], NULL, 10);
	long pause = argc > 3 ? atol(argv[3]) : 100;
	int fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct pollfd in = {0, POLLIN, 0};
	volatile uint64_t *times;
	volatile uint8_t *memory;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || ftruncate(fd, (off_t)(pages * 16)) < 0)
		return 1;
	times = mmap(NULL, pages * 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (times == MAP_FAILED || memory == MAP_FAILED)
		return 1;
	madvise((void *)memory, pages * PAGE, MADV_NOHUGEPAGE);
	printf("%p\n", (void *)memory);
	fflush(stdout);
	for (size_t i = 0; i < pages; i++) {
		struct timespec nap = {0, pause * 1000};

		times[2 * i] = now();
		memory[i * PAGE] = 1;
		times[2 * i + 1] = now();
		if (poll(&in, 1, 0) != 0)
			return 0;
		nanosleep(&nap, NULL);
	}
	poll(&in, 1, -1);
	return 0;
}
