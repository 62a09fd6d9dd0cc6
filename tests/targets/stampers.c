/* SPDX-License-Identifier: MIT */
/*
 * stampers.so: threads that store to watched memory endlessly, and a judge of the answers.
 *
 * A stamp is a number that no store has used before; each page begins with its last stamp. The
 * memory itself judges the answers:
 *
 *	missed	before a get, the stamp of a page differs from its stamp right after the last get that had
 *		the page, and this get does not have it (a store during a get is in it or in the next)
 *	extra	a get has a page although no store to it was under way since the previous get began
 *
 * The library contains no code of pagescan.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 64

struct page {
	_Atomic uint64_t begun, done;	/* stores */
	uint64_t done_then, done_now;	/* when the previous get began, and this one */
	/* after the last get that had the page, and before this one */
	uint64_t stamp_then, stamp_now;
	int found;
};

static _Atomic uint64_t next_stamp = 1;
static atomic_int stop;
static pthread_t threads[THREADS];
static int running;
static unsigned char *memory;
static size_t count, size;
static struct page *pages;

static _Atomic uint64_t *stamp_of(size_t page)
{
	return (_Atomic uint64_t *)(memory + page * size);
}

static void *stamper(void *seed)
{
	uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;

	while (!stop) {
		size_t page;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		page = state % count;
		pages[page].begun++;
		*stamp_of(page) = next_stamp++;
		pages[page].done++;
	}
	return NULL;
}

int begin(void *where, size_t pages_there, size_t page_size, int how_many)
{
	memory = where;
	count = pages_there;
	size = page_size;
	stop = 0;
	free(pages);
	pages = calloc(count, sizeof(*pages));
	if (!pages || how_many > THREADS)
		return -1;
	for (running = 0; running < how_many; running++)
		if (pthread_create(&threads[running], NULL, stamper,
				   (void *)(uintptr_t)(running + 1)))
			return -1;
	return 0;
}

uint64_t end(void)
{
	uint64_t stores = 0;

	stop = 1;
	while (running)
		pthread_join(threads[--running], NULL);
	for (size_t i = 0; i < count; i++)
		stores += pages[i].done;
	return stores;
}

void before_get(void)
{
	for (size_t i = 0; i < count; i++) {
		pages[i].stamp_now = *stamp_of(i);
		pages[i].done_now = pages[i].done;
		pages[i].found = 0;
	}
}

/* Judges the addresses; adds to missed and extra. Returns how many pages had to be found. */
uint64_t after_get(const uint64_t *addresses, size_t found, uint64_t *missed, uint64_t *extra)
{
	uint64_t due = 0;

	for (size_t i = 0; i < found; i++)
		pages[(addresses[i] - (uintptr_t)memory) / size].found++;
	for (size_t i = 0; i < count; i++) {
		struct page *page = &pages[i];
		uint64_t begun = page->begun;

		due += page->stamp_now != page->stamp_then;
		*missed += page->stamp_now != page->stamp_then && !page->found;
		*extra += page->found > 1 || (page->found && begun == page->done_then);
		if (page->found)
			page->stamp_then = *stamp_of(i);
		page->done_then = page->done_now;
	}
	return due;
}
