/* SPDX-License-Identifier: MIT */
/*
 * target BYTES [huge]: has BYTES of populated memory in pages of 4 KiB (a power of two), or in huge
 * pages, prints {"pid", "start", "end"} and obeys lines:
 *
 *	write PERCENT	stores to that percentage of its pages, scattered; {"ns": …, "pages": …}
 *	holes BYTES	maps BYTES more, with every second page read once; {"start", "end"}
 *	spots BYTES [STEP [COUNT]]
 *			maps BYTES more and stores to a page every STEP bytes, by default to every
 *			second page, to COUNT at most; {"start", "end"}
 *	mappings COUNT	maps and populates COUNT more pages, each as its own mapping; {"start", "end"}
 *	grow heap|mmap BYTES
 *			adds BYTES of populated memory, beside what came before; {}
 *	churn		starts a thread that maps, unmaps and allocates in a loop
 *	calm		ends that thread: {"calls", "max_ns", "max_wait_ns", "malloc_max_ns"}
 *
 * The end of input ends the program.
 */
#define _GNU_SOURCE
#include "answer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE 4096u
/* A shorter call is no gap, and the kernel is not asked about it. */
#define GAP_NS 50000u

static atomic_bool churning;

static struct {
	uint64_t calls, max, max_wait, malloc_max;
} seen;

static void fail(void)
{
	answer("{\"error\": \"target: %s\"}\n", strerror(errno));
	exit(1);
}

static unsigned char *map(size_t bytes)
{
	unsigned char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED || (madvise(at, bytes, MADV_NOHUGEPAGE) && errno != EINVAL))
		fail();
	return at;
}

/* How long this thread has been ready without a processor in all: the second number of schedstat.
 * */
static uint64_t starved_ns(int schedstat)
{
	char text[96] = "";

	if (schedstat < 0 || pread(schedstat, text, sizeof(text) - 1, 0) <= 0)
		return 0;
	return strtoull(strchr(text, ' ') + 1, NULL, 10);
}

/*
 * A call that took long waited either for the lock of the memory map, which is to be measured, or
 * for a processor. The scheduler counts the latter; that time since the last gap is subtracted.
 */
static uint64_t judge(uint64_t ns, int schedstat, uint64_t *starved)
{
	uint64_t before = *starved, lost;

	if (ns < GAP_NS)
		return ns;
	*starved = starved_ns(schedstat);
	lost = *starved - before;
	return ns > lost ? ns - lost : 0;
}

static void *churn(void *unused)
{
	int schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	uint64_t starved = starved_ns(schedstat);

	while (churning) {
		uint64_t begun = now_ns(), ns, wait;
		void *at = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (at != MAP_FAILED)
			munmap(at, 64 * PAGE);
		ns = now_ns() - begun;
		seen.calls++;
		if (ns > seen.max)
			seen.max = ns;
		wait = judge(ns, schedstat, &starved);
		if (wait > seen.max_wait)
			seen.max_wait = wait;

		/* Larger than M_MMAP_THRESHOLD, so that it is a mapping of its own, like other
		 * large buffers. */
		begun = now_ns();
		at = malloc(1u << 20);
		*(volatile char *)at = 1;
		free(at);
		wait = judge(now_ns() - begun, schedstat, &starved);
		if (wait > seen.malloc_max)
			seen.malloc_max = wait;
	}
	close(schedstat);
	return unused;
}

static void write_some(unsigned char *memory, size_t pages, double percent)
{
	size_t count = (size_t)((double)pages * percent / 100 + 0.5);
	uint64_t begun = now_ns();

	for (size_t i = 0; i < count; i++)
		((volatile unsigned char *)memory)[scattered(i, pages) * PAGE]++;
	answer("{\"ns\": %lu, \"pages\": %zu}\n", now_ns() - begun, count);
}

static void holes(size_t bytes)
{
	volatile unsigned char *at = map(bytes);
	unsigned char sum = 0;

	for (size_t i = 0; i < bytes; i += 2 * PAGE)
		sum = (unsigned char)(sum + at[i]);
	answer("{\"start\": %lu, \"end\": %lu, \"sum\": %u}\n", (uint64_t)at, (uint64_t)at + bytes,
	       sum);
}

static void spots(size_t bytes, size_t step, size_t count)
{
	volatile unsigned char *at = map(bytes);

	for (size_t i = 0; i < bytes && count; i += step, count--)
		at[i] = 1;
	answer("{\"start\": %lu, \"end\": %lu}\n", (uint64_t)at, (uint64_t)at + bytes);
}

/* A hole follows each page, so that no mapping has a neighbour. */
static void mappings(size_t count)
{
	size_t bytes = count * 2 * PAGE;
	unsigned char *at = map(bytes);

	for (size_t i = 0; i < bytes; i += 2 * PAGE) {
		((volatile unsigned char *)at)[i] = 1;
		if (munmap(at + i + PAGE, PAGE))
			fail(); /* vm.max_map_count */
	}
	answer("{\"start\": %lu, \"end\": %lu}\n", (uint64_t)at, (uint64_t)at + bytes);
}

static void grow(const char *where, size_t bytes)
{
	void *at = where && !strcmp(where, "heap") ?
			   sbrk((intptr_t)bytes) :
			   mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		fail();
	memset(at, 1, bytes);
	answer("{}\n");
}

/* The next number of a line that strtok() began. */
static size_t next(size_t otherwise)
{
	char *number = strtok(NULL, " \n");

	return number ? strtoull(number, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	size_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, pages = bytes / PAGE;
	unsigned char *memory;
	char line[128];
	pthread_t thread;

	if (!bytes || pages & (pages - 1))
		return 2;
	prctl(PR_SET_PDEATHSIG, 9);
	memory = map(bytes);
	if (argc > 2) /* memory aligned to huge pages, as large mappings are */
		madvise(memory, bytes, MADV_HUGEPAGE);
	for (size_t i = 0; i < bytes; i += PAGE)
		memory[i] = 1;
	answer("{\"pid\": %d, \"start\": %lu, \"end\": %lu}\n", getpid(), (uint64_t)memory,
	       (uint64_t)memory + bytes);

	while (fgets(line, sizeof(line), stdin)) {
		char *word = strtok(line, " \n");

		if (word && !strcmp(word, "write")) {
			char *number = strtok(NULL, " \n");

			write_some(memory, pages, number ? strtod(number, NULL) : 100);
		} else if (word && !strcmp(word, "holes")) {
			holes(next(0));
		} else if (word && !strcmp(word, "spots")) {
			size_t all = next(0), step = next(2 * PAGE);

			spots(all, step, next(SIZE_MAX));
		} else if (word && !strcmp(word, "mappings")) {
			mappings(next(0));
		} else if (word && !strcmp(word, "grow")) {
			char *where = strtok(NULL, " \n");

			grow(where, next(0));
		} else if (word && !strcmp(word, "churn")) {
			memset(&seen, 0, sizeof(seen));
			churning = 1;
			pthread_create(&thread, NULL, churn, NULL);
			answer("{}\n");
		} else if (word && !strcmp(word, "calm")) {
			churning = 0;
			pthread_join(thread, NULL);
			answer("{\"calls\": %lu, \"max_ns\": %lu, \"max_wait_ns\": %lu, "
			       "\"malloc_max_ns\": %lu}\n",
			       seen.calls, seen.max, seen.max_wait, seen.malloc_max);
		} else {
			answer("{\"error\": \"target: no such command\"}\n");
		}
	}
	return 0;
}
