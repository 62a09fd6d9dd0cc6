/* SPDX-License-Identifier: MIT */
/*
 * GetWriteWatch() of Windows, for C: lists the written pages of memory of the calling process.
 *
 * The functions are in the shared object that pagescan.writewatch.library() names; open it with
 * dlopen(3) and RTLD_LAZY. It needs neither a running Python nor libpython. docs/guide.md has an
 * example.
 *
 * Every function returns 0, or -errno:
 *
 *	EINVAL	a part that is not in the memory, a size or a count of 0, an unknown flag, a watch
 *		that was destroyed
 *	EFAULT	a NULL pointer for a result
 *	ESRCH	the watch was made before a fork(2): this is the child, and nothing watches its copy
 *	EPERM	some part is no longer watched: another mapping took its place, or this process
 *		closed the descriptor. A call that resets loses the pages collected so far
 *	ENOMEM	no memory, or too many mappings
 *	EBUSY	another userfaultfd watches that memory (adopt)
 *	others	userfaultfd(2) or /proc/self/pagemap failed: EPERM, ENOSYS, EMFILE, ENOENT, ...
 *
 * Many threads may call all functions at once, also for one watch. To destroy a watch while another
 * call uses it is the caller's error, as with free(3). No function uses malloc(3). From its first
 * watch on, the process keeps two descriptors, which are close-on-exec.
 */
#ifndef PAGESCAN_WRITEWATCH_H
#define PAGESCAN_WRITEWATCH_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cdef begin */
/* WRITE_WATCH_FLAG_RESET: reset the returned pages, and only them, in the same step. */
#define PAGESCAN_WATCH_RESET 1

/* The caller provides it, and may read but not change it. */
struct pagescan_watch {
	char *address;  /* page-aligned */
	size_t size;    /* bytes, as asked for; the last page is watched whole */
	size_t page;    /* bytes per page */
	int created;    /* 1: destroying it frees the memory */
	int pagemap;    /* a descriptor that all watches share */
	size_t process; /* identifies the process that made it; a forked child differs */
	size_t avoid;   /* categories of pages that do not count as written */
};

/* VirtualAlloc(MEM_WRITE_WATCH): maps size bytes of zeros; no page counts as written. */
int pagescan_watch_create(struct pagescan_watch *watch, size_t size);

/*
 * Watches existing private anonymous memory: page-aligned, in one mapping or several. No page of it
 * counts as written at first. Huge pages are turned off for it.
 */
int pagescan_watch_adopt(struct pagescan_watch *watch, void *address, size_t size);

/*
 * GetWriteWatch(): lists the pages written since they were allocated or reset, ascending. [start,
 * start + size) is any part of the memory; its pages are listed whole. *count is the capacity of
 * addresses, and becomes the number of pages; if they fill it, call again from behind the last
 * page. After an error it is the number of pages found before the error. *granularity is the page
 * size.
 */
int pagescan_watch_get(const struct pagescan_watch *watch, unsigned int flags, const void *start,
		       size_t size, void **addresses, size_t *count, size_t *granularity);

/* ResetWriteWatch(): no page of that part counts as written any more. */
int pagescan_watch_reset(const struct pagescan_watch *watch, const void *start, size_t size);

/* Unmaps the memory if it was created; stops watching it if it was adopted. */
int pagescan_watch_destroy(struct pagescan_watch *watch);
/* cdef end */

#ifdef __cplusplus
}
#endif
#endif
