/* SPDX-License-Identifier: MIT */
/*
 * write_watch.so: threads that store to random pages endlessly, while the caller gets the written
 * pages at intervals: with pagescan_writewatch.h, with the usual fallback (read-only memory and a
 * SIGSEGV handler), or not at all.
 */
#define _GNU_SOURCE
#include "answer.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pagescan_writewatch.h>

#define THREADS 64

static unsigned char *memory;
static size_t count, size;
static pthread_t threads[THREADS];
static int running;
static atomic_bool stop;
static _Atomic uint64_t stores;
static uint64_t begun;

static void *store(void *seed)
{
	uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1, done = 0;

	for (; !stop; done++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		((volatile unsigned char *)memory)[state % count * size] = (unsigned char)state;
	}
	stores += done;
	return NULL;
}

int begin(void *where, size_t pages, size_t page_size, int how_many)
{
	memory = where;
	count = pages;
	size = page_size;
	stop = false;
	stores = 0;
	begun = now_ns();
	for (running = 0; running < how_many && running < THREADS; running++)
		if (pthread_create(&threads[running], NULL, store,
				   (void *)(uintptr_t)(running + 1)))
			return -1;
	return 0;
}

/* Returns how long a store took a thread, on average, in ns. */
double end(void)
{
	double ns = (double)(now_ns() - begun) * running;

	stop = true;
	while (running)
		pthread_join(threads[--running], NULL);
	return ns / (double)stores;
}

/* ---- the fallback ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;
static unsigned char *watched, *dirty;
static size_t watched_pages;

static void on_fault(int number, siginfo_t *info, void *unused)
{
	size_t page = ((uintptr_t)info->si_addr - (uintptr_t)watched) / size;

	(void)number;
	(void)unused;
	if ((unsigned char *)info->si_addr < watched || page >= watched_pages) {
		sigaction(SIGSEGV, &before, NULL);
		return;
	}
	pthread_mutex_lock(&lock);
	dirty[page] = 1;
	if (mprotect(watched + page * size, size, PROT_READ | PROT_WRITE))
		_exit(4); /* vm.max_map_count */
	pthread_mutex_unlock(&lock);
}

static size_t fallback_get(void **addresses)
{
	size_t found = 0;

	pthread_mutex_lock(&lock);
	for (size_t page = 0; page < watched_pages; page++)
		if (dirty[page])
			addresses[found++] = watched + page * size;
	if (found) {
		memset(dirty, 0, watched_pages);
		/* One call for all pages: the best that the fallback can do. */
		mprotect(watched, watched_pages * size, PROT_READ);
	}
	pthread_mutex_unlock(&lock);
	return found;
}

/* ---- one measurement: ns per store, us per get; returns the mean number of pages per get ---- */

static double measure(size_t (*get)(void **, void *), void *with, int how_many, int rounds,
		      unsigned int pause_us, double *store_ns, double *get_us)
{
	void **addresses = calloc(count, sizeof(*addresses));
	uint64_t spent = 0;
	double found = 0;

	if (!addresses || begin(memory, count, size, how_many))
		return -1;
	for (int i = 0; i < rounds; i++) {
		uint64_t at;

		usleep(pause_us);
		at = now_ns();
		found += (double)get(addresses, with);
		spent += now_ns() - at;
	}
	*store_ns = end();
	*get_us = (double)spent / rounds / 1000;
	free(addresses);
	return found / rounds;
}

static size_t get_nothing(void **addresses, void *unused)
{
	(void)addresses;
	(void)unused;
	return 0;
}

static size_t get_fallback(void **addresses, void *unused)
{
	(void)unused;
	return fallback_get(addresses);
}

struct with {
	__typeof__(pagescan_watch_get) *get;
	struct pagescan_watch watch;
};

static size_t get_watch(void **addresses, void *argument)
{
	struct with *with = argument;
	size_t found = count, granularity;

	return with->get(&with->watch, PAGESCAN_WATCH_RESET, memory, count * size, addresses,
			 &found, &granularity) ?
		       0 :
		       found;
}

static void make(size_t pages)
{
	size = (size_t)sysconf(_SC_PAGESIZE);
	count = pages;
	memory = mmap(NULL, count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	if (memory == MAP_FAILED)
		abort();
	madvise(memory, count * size, MADV_NOHUGEPAGE);
	memset(memory, 1, count * size);
}

double plain(size_t pages, int how_many, int rounds, unsigned int pause_us, double *store_ns,
	     double *get_us)
{
	double found;

	make(pages);
	found = measure(get_nothing, NULL, how_many, rounds, pause_us, store_ns, get_us);
	munmap(memory, count * size);
	return found;
}

double fallback(size_t pages, int how_many, int rounds, unsigned int pause_us, double *store_ns,
		double *get_us)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	double found;

	make(pages);
	watched = memory;
	watched_pages = pages;
	dirty = calloc(pages, 1);
	if (!dirty || sigaction(SIGSEGV, &action, &before) ||
	    mprotect(memory, count * size, PROT_READ))
		return -1;
	found = measure(get_fallback, NULL, how_many, rounds, pause_us, store_ns, get_us);
	sigaction(SIGSEGV, &before, NULL);
	munmap(memory, count * size);
	free(dirty);
	return found;
}

/* adopt, get, destroy: the addresses of pagescan's functions. */
double watch(__typeof__(pagescan_watch_adopt) *adopt, __typeof__(pagescan_watch_get) *get,
	     __typeof__(pagescan_watch_destroy) *destroy, size_t pages, int how_many, int rounds,
	     unsigned int pause_us, double *store_ns, double *get_us)
{
	struct with with = {.get = get};
	double found;

	make(pages);
	if (adopt(&with.watch, memory, count * size))
		return -1;
	found = measure(get_watch, &with, how_many, rounds, pause_us, store_ns, get_us);
	destroy(&with.watch);
	munmap(memory, count * size);
	return found;
}
