/* SPDX-License-Identifier: MIT */
/*
 * Which pages of one's own memory were written: GetWriteWatch() of Windows, for C.
 *
 * The functions are in the shared object that pagescan.writewatch.library() names; open it with
 * dlopen(3) and RTLD_LAZY. It needs neither a Python that runs nor libpython. docs/guide.md has an
 * example.
 *
 * Every function returns 0, or -errno:
 *
 *	EINVAL	no such part of the memory, a size or a count of 0, an unknown flag, a watch that
 *		was destroyed
 *	EFAULT	a NULL where a result should go
 *	ESRCH	the watch was made before a fork(2): this is the child, and nothing watches its copy
 *	EPERM	a part is watched no longer: another mapping took its place, or somebody closed the
 *		descriptor. In a call that resets, what it had got by then is lost
 *	ENOMEM	no memory, or too many mappings
 *	EBUSY	another userfaultfd watches that memory (adopt)
 *	others	userfaultfd(2) or /proc/self/pagemap cannot be had: EPERM, ENOSYS, EMFILE, ENOENT, ...
 *
 * All may be called from many threads at once, also on one watch. To destroy a watch while another
 * call uses it is the caller's error, as with free(3). Nothing is taken from malloc(3). The process
 * keeps two descriptors, close-on-exec, from its first watch on.
 */
#ifndef PAGESCAN_WRITEWATCH_H
#define PAGESCAN_WRITEWATCH_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cdef begin */
/* WRITE_WATCH_FLAG_RESET: forget what is returned, and only that, in the same step. */
#define PAGESCAN_WATCH_RESET 1

/* The caller's; to be read, not changed. */
struct pagescan_watch {
	char *address;  /* page-aligned */
	size_t size;    /* bytes, as asked for; the last page is whole all the same */
	size_t page;    /* bytes of a page */
	int created;    /* 1: destroying it frees the memory */
	int pagemap;    /* a descriptor that all watches share */
	size_t process; /* which process made it: a forked child counts as another */
	size_t avoid;   /* categories of pages that do not count */
};

/* Maps size bytes of zeros, none of them written: VirtualAlloc(MEM_WRITE_WATCH). */
int pagescan_watch_create(struct pagescan_watch *watch, size_t size);

/*
 * Watches private anonymous memory that is there: page-aligned, in one mapping or more. Nothing
 * of it counts as written. Huge pages are turned off for it.
 */
int pagescan_watch_adopt(struct pagescan_watch *watch, void *address, size_t size);

/*
 * GetWriteWatch(): the pages written since they were allocated or reset, ascending. [start, start +
 * size) is any part of the memory, and counts in whole pages. *count is the room in addresses, and
 * then how many there are; when it is full, go on behind the last one. With an error it says how
 * many there were until then. *granularity is the size of a page.
 */
int pagescan_watch_get(const struct pagescan_watch *watch, unsigned int flags, const void *start,
		       size_t size, void **addresses, size_t *count, size_t *granularity);

/* ResetWriteWatch(): what is written in that part counts from now on. */
int pagescan_watch_reset(const struct pagescan_watch *watch, const void *start, size_t size);

/* Frees the memory if it was created, and gives it back as plain memory if it was adopted. */
int pagescan_watch_destroy(struct pagescan_watch *watch);
/* cdef end */

#ifdef __cplusplus
}
#endif
#endif
