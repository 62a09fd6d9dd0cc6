/* SPDX-License-Identifier: MIT */
/*
 * An allocator of Python's arenas that keeps the arenas which Python frees, and gives them out
 * again: so their pages stay, and what was written to them can still be counted.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <malloc.h>
#include <stdlib.h>

/*
 * Where a kept arena has the address of the next one: at its first pool, which Python has written.
 * A pool has 16 KiB (Objects/obmalloc.c).
 */
static void **link_of(void *arena)
{
	return (void **)(((uintptr_t)arena + 16383u) & ~(uintptr_t)16383u);
}

static void *take(void *ctx, size_t size)
{
	struct ps_arenas *arenas = ctx;
	void *arena = arenas->kept;

	if (!arena || size != arenas->size)
		return arenas->alloc(arenas->ctx, size);
	arenas->kept = *link_of(arena);
	return arena;
}

static void keep(void *ctx, void *arena, size_t size)
{
	struct ps_arenas *arenas = ctx;

	if (!arenas->size)
		arenas->size = size;
	if (size != arenas->size || size < 65536) {
		arenas->release(arenas->ctx, arena, size);
		return;
	}
	*link_of(arena) = arenas->kept;
	arenas->kept = arena;
}

int ps_arenas_begin(struct ps_arenas *arenas, struct ps_arena_calls *calls)
{
	arenas->ctx = calls->ctx;
	arenas->alloc = calls->alloc;
	arenas->release = calls->release;
	arenas->kept = NULL;
	arenas->size = 0;
	*calls = (struct ps_arena_calls){arenas, take, keep};
	return 0;
}

int ps_arenas_end(struct ps_arenas *arenas)
{
	while (arenas->kept) {
		void *arena = arenas->kept;

		arenas->kept = *link_of(arena);
		arenas->release(arenas->ctx, arena, arenas->size);
	}
	return 0;
}

/* The usual values are those of mallopt(3). */
int ps_malloc_keep(int keep)
{
#ifdef __GLIBC__
	mallopt(M_MMAP_MAX, keep ? 0 : 65536);
	mallopt(M_TRIM_THRESHOLD, keep ? INT32_MAX : 128 * 1024);
	if (!keep)
		malloc_trim(0);
#else
	(void)keep;
#endif
	return 0;
}
