/* SPDX-License-Identifier: MIT */
/*
 * watcher LIBRARY: a C program that watches its own writes with pagescan_writewatch.h, without
 * Python, and that knows which pages it wrote. Prints "ok", or the line that failed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pagescan_writewatch.h>

#define PAGES 64

static __typeof__(pagescan_watch_create) *create;
static __typeof__(pagescan_watch_adopt) *adopt;
static __typeof__(pagescan_watch_get) *get;
static __typeof__(pagescan_watch_reset) *reset;
static __typeof__(pagescan_watch_destroy) *destroy;

static size_t page;
static void *found[PAGES];

#define MUST(fact)                                                                                 \
	do {                                                                                       \
		if (!(fact)) {                                                                     \
			printf("line %d: %s\n", __LINE__, #fact);                                  \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* Whether exactly these pages are found, in this order, in [start, start + size). */
static int finds(struct pagescan_watch *watch, unsigned int flags, const void *start, size_t size,
		 size_t room, const char *expected)
{
	size_t count = room, granularity = 0;
	char text[256] = "";

	if (get(watch, flags, start, size, found, &count, &granularity) || granularity != page)
		return 0;
	for (size_t i = 0; i < count; i++)
		sprintf(text + strlen(text), "%zu ",
			(size_t)((char *)found[i] - watch->address) / page);
	return !strcmp(text, expected);
}

static int all(struct pagescan_watch *watch, unsigned int flags, const char *expected)
{
	return finds(watch, flags, watch->address, watch->size, PAGES, expected);
}

static void pages_in_order(void)
{
	struct pagescan_watch watch;

	MUST(!create(&watch, PAGES * page - 1));
	MUST(watch.size == PAGES * page - 1 && watch.page == page);
	MUST(all(&watch, 0, ""));
	watch.address[9 * page + 1] = 1;
	watch.address[2 * page] = 1;
	watch.address[3 * page - 1] = watch.address[4 * page] + 1; /* page 4 is only read */
	MUST(all(&watch, 0, "2 9 "));
	MUST(finds(&watch, 0, watch.address + 3 * page - 1, 1, 1, "2 "));
	MUST(finds(&watch, PAGESCAN_WATCH_RESET, watch.address, watch.size, 1, "2 "));
	MUST(all(&watch, 0, "9 "));
	MUST(finds(&watch, 0, (char *)found[0] + page, 54 * page - 1, PAGES, ""));
	MUST(!reset(&watch, watch.address + 9 * page, 1));
	MUST(all(&watch, 0, ""));
	MUST(!destroy(&watch));
	MUST(destroy(&watch) == -EINVAL);
}

static void refusals(void)
{
	struct pagescan_watch watch, other;
	size_t count = 1, granularity;
	char *last;

	MUST(create(&watch, 0) == -EINVAL && create(NULL, 1) == -EFAULT);
	MUST(create(&watch, (size_t)1 << 60) == -ENOMEM);
	MUST(adopt(&watch, NULL, 0) == -EINVAL && adopt(NULL, NULL, 1) == -EFAULT);
	MUST(adopt(&watch, (void *)1, page) == -EINVAL);
	MUST(adopt(&watch, (void *)page, (size_t)-1) == -EINVAL);
	MUST(adopt(&watch, (void *)page, page) == -ENOMEM); /* nothing is mapped there */
	MUST(!create(&watch, 4 * page));
	last = watch.address + 4 * page;
	MUST(get(&watch, 0, watch.address, page, NULL, &count, &granularity) == -EFAULT);
	MUST(get(&watch, 0, watch.address, page, found, NULL, &granularity) == -EFAULT);
	MUST(get(&watch, 0, watch.address, page, found, &count, NULL) == -EFAULT);
	count = 1;
	MUST(get(&watch, 2, watch.address, page, found, &count, &granularity) == -EINVAL);
	count = 0;
	MUST(get(&watch, 0, watch.address, page, found, &count, &granularity) == -EINVAL);
	count = 1;
	MUST(get(&watch, 0, watch.address, 0, found, &count, &granularity) == -EINVAL);
	MUST(reset(&watch, watch.address - 1, 2) == -EINVAL);
	MUST(reset(&watch, watch.address, 4 * page + 1) == -EINVAL);
	MUST(reset(&watch, last - 1, 2) == -EINVAL && reset(&watch, last, 1) == -EINVAL);
	MUST(reset(&watch, last - 1, (size_t)-1) == -EINVAL);
	MUST(!reset(&watch, last - 1, 1));
	MUST(reset(NULL, last, 1) == -EINVAL && destroy(NULL) == -EFAULT);

	/* Puts another mapping in the place of a part. */
	MUST(mmap(watch.address + page, page, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	MUST(reset(&watch, watch.address, 4 * page) == -EPERM);
	MUST(!reset(&watch, watch.address + 2 * page, page));
	MUST(!destroy(&watch));
	memset(&other, 0, sizeof(other));
	MUST(reset(&other, NULL, 1) == -EINVAL);
}

static void memory_of_ones_own(void)
{
	struct pagescan_watch watch;
	char *memory = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(memory != MAP_FAILED);
	memset(memory, 7, PAGES * page);
	MUST(!adopt(&watch, memory + page, 8 * page));
	MUST(all(&watch, 0, ""));
	memory[0] = memory[page] = memory[8 * page] = memory[9 * page] = 1;
	MUST(all(&watch, 0, "0 7 "));
	/* A change of rights changes nothing, as with VirtualProtect(). */
	MUST(!mprotect(memory + 3 * page, page, PROT_READ) && all(&watch, 0, "0 7 "));
	MUST(!mprotect(memory + 3 * page, page, PROT_READ | PROT_WRITE));
	MUST(all(&watch, PAGESCAN_WATCH_RESET, "0 7 "));
	MUST(!destroy(&watch) && memory[8 * page] == 1 && memory[2 * page] == 7);
	memory[page] = 2;
	MUST(!adopt(&watch, memory, PAGES * page) && all(&watch, 0, ""));
	MUST(!destroy(&watch) && !munmap(memory, PAGES * page));
}

static void a_child(void)
{
	struct pagescan_watch watch, own;
	int status;

	MUST(!create(&watch, 8 * page));
	watch.address[0] = 5;
	if (!fork()) {
		MUST(watch.address[0] == 5);
		MUST(reset(&watch, watch.address, page) == -ESRCH);
		MUST(!create(&own, 8 * page));
		MUST(reset(&watch, watch.address, page) == -ESRCH);
		own.address[3 * page] = 1;
		MUST(all(&own, PAGESCAN_WATCH_RESET, "3 ") && !destroy(&own));
		MUST(!destroy(&watch));
		exit(0);
	}
	MUST(wait(&status) > 0 && !status);
	MUST(all(&watch, PAGESCAN_WATCH_RESET, "0 ") && !destroy(&watch));
}

int main(int argc, char **argv)
{
	void *library = argc == 2 ? dlopen(argv[1], RTLD_LAZY) : NULL;

	page = (size_t)sysconf(_SC_PAGESIZE);
	if (!library) {
		printf("%s\n", argc == 2 ? dlerror() : "usage: watcher LIBRARY");
		return 2;
	}
	create = dlsym(library, "pagescan_watch_create");
	adopt = dlsym(library, "pagescan_watch_adopt");
	get = dlsym(library, "pagescan_watch_get");
	reset = dlsym(library, "pagescan_watch_reset");
	destroy = dlsym(library, "pagescan_watch_destroy");
	MUST(create && adopt && get && reset && destroy);
	pages_in_order();
	refusals();
	memory_of_ones_own();
	a_child();
	printf("ok\n");
	return 0;
}
