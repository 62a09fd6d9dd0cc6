/* SPDX-License-Identifier: MIT */
/*
 * GetWriteWatch() for memory of this process: implements pagescan_writewatch.h, without Python.
 *
 * All watches of a process share one userfaultfd and one pagemap. After a fork, the child's copies
 * of both descriptors refer to its parent's memory. So the descriptors and the mutex are in a page
 * that the kernel fills with zeros for the child (MADV_WIPEONFORK): the child opens its own, and a
 * fork during a call leaves no lock held.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#pragma GCC visibility push(default)
#include "include/pagescan_writewatch.h"
#pragma GCC visibility pop

#include "page.h"
#include "shim.h"

#define VEC_LENGTH 512u

/* All zeros in a new process: the mutex is free, and there are no descriptors. */
struct process {
	pthread_mutex_t lock;
	_Atomic size_t which; /* 0: not open */
	int uffd;
	int pagemap;
	size_t avoid;
};

/* A descriptor inherited from the parent; the child's first watch closes it if it is unchanged. */
struct inherited {
	int fd;
	dev_t device;
	ino_t inode;
};

static struct process *_Atomic current;
static size_t opened; /* how often this process or an ancestor has opened both; under the lock */
static struct inherited inherited[2];

static struct process *process(void)
{
	struct process *there = atomic_load(&current), *made;

	if (there)
		return there;
	made = mmap(NULL, sizeof(*made), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (made == MAP_FAILED)
		return NULL;
	if (!madvise(made, sizeof(*made), MADV_WIPEONFORK) &&
	    atomic_compare_exchange_strong(&current, &there, made))
		return made;
	munmap(made, sizeof(*made));
	return there;
}

static void inherit(struct inherited *slot, int fd)
{
	struct stat now;

	/* The child may have closed it, and something else may have its number. */
	if (slot->inode && !fstat(slot->fd, &now) && now.st_dev == slot->device &&
	    now.st_ino == slot->inode)
		close(slot->fd);
	slot->inode = 0;
	if (fstat(fd, &now))
		return;
	slot->fd = fd;
	slot->device = now.st_dev;
	slot->inode = now.st_ino;
}

static int open_both(struct process *self)
{
	struct ps_pm_scan_arg probe = {.size = sizeof(probe), .return_mask = PS_PAGE_IS_GUARD};
	int rc;

	self->uffd = ps_uffd_open();
	if (self->uffd < 0)
		return self->uffd;
	rc = ps_uffd_api(self->uffd, PS_UFFD_FEATURES);
	if (rc < 0)
		goto close_uffd;
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (self->pagemap < 0) {
		rc = -errno;
		goto close_uffd;
	}
	/* The kernel reports pages that were only read, and guards, as written: leave them out. */
	self->avoid = PS_PAGE_IS_PFNZERO;
	if (!ioctl(self->pagemap, PS_PAGEMAP_SCAN, &probe))
		self->avoid |= PS_PAGE_IS_GUARD;
	inherit(&inherited[0], self->uffd);
	inherit(&inherited[1], self->pagemap);
	atomic_store(&self->which, ++opened);
	return 0;

close_uffd:
	close(self->uffd);
	return rc;
}

static int ready(struct process **ret)
{
	struct process *self = process();
	int rc = 0;

	if (!self)
		return -ENOMEM;
	pthread_mutex_lock(&self->lock);
	if (!atomic_load(&self->which))
		rc = open_both(self);
	pthread_mutex_unlock(&self->lock);
	*ret = self;
	return rc;
}

/* Whether this process, and not its parent, made the watch. */
static bool is_ours(const struct pagescan_watch *watch)
{
	struct process *self = atomic_load(&current);

	return self && atomic_load(&self->which) == watch->process;
}

static size_t whole(const struct pagescan_watch *watch, size_t size)
{
	return (size + watch->page - 1) / watch->page * watch->page;
}

/* Checks a part of the memory and returns its whole pages, *low to *end. */
static int part(const struct pagescan_watch *watch, const void *start, size_t size, uint64_t *low,
		uint64_t *end)
{
	uint64_t base, at = (uintptr_t)start;

	if (!watch || !watch->address)
		return -EINVAL;
	base = (uintptr_t)watch->address;
	if (!size || at < base || at - base >= watch->size || size > watch->size - (at - base))
		return -EINVAL;
	if (!is_ours(watch))
		return -ESRCH;
	*low = base + (at - base) / watch->page * watch->page;
	*end = base + whole(watch, at - base + size);
	return 0;
}

/* One PAGEMAP_SCAN from *low, which it advances: at most `most` pages; 0: no limit. */
static int scan(const struct pagescan_watch *watch, unsigned int flags, uint64_t *low, uint64_t end,
		size_t most, struct ps_page_region *vec)
{
	struct ps_pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PS_PM_SCAN_CHECK_WPASYNC |
			 (flags & PAGESCAN_WATCH_RESET ? PS_PM_SCAN_WP_MATCHING : 0),
		.start = *low,
		.end = end,
		.vec = (uintptr_t)vec,
		.vec_len = VEC_LENGTH,
		.max_pages = most,
		.category_inverted = watch->avoid,
		.category_mask = PS_PAGE_IS_WRITTEN | watch->avoid,
		.category_anyof_mask = PS_PAGE_IS_PRESENT | PS_PAGE_IS_SWAPPED, /* no holes */
		.return_mask = PS_PAGE_IS_WRITTEN,
	};
	int found = ioctl(watch->pagemap, PS_PAGEMAP_SCAN, &arg);
	uint64_t next = arg.walk_end;

	if (found < 0)
		return -errno;
	/* A complete scan may leave walk_end at an earlier flush. */
	if (found && vec[found - 1].end > next)
		next = vec[found - 1].end;
	if (next <= *low)
		return -EINVAL; /* the kernel made no progress: do not loop for ever */
	*low = next;
	return found;
}

int pagescan_watch_get(const struct pagescan_watch *watch, unsigned int flags, const void *start,
		       size_t size, void **addresses, size_t *count, size_t *granularity)
{
	struct ps_page_region vec[VEC_LENGTH];
	size_t room, have = 0;
	uint64_t low, end;
	int rc;

	if (!count || !granularity || (*count && !addresses))
		return -EFAULT;
	room = *count;
	*count = 0;
	if (!room || flags & ~(unsigned int)PAGESCAN_WATCH_RESET)
		return -EINVAL;
	rc = part(watch, start, size, &low, &end);
	if (rc < 0)
		return rc;
	*granularity = watch->page;

	while (low < end && have < room) {
		/* The limit is the room that is left: the kernel resets no page beyond it. */
		rc = scan(watch, flags, &low, end, room - have, vec);
		for (int i = 0; i < rc; i++)
			for (uint64_t at = vec[i].start; at < vec[i].end; at += watch->page)
				addresses[have++] = (void *)(uintptr_t)at;
		*count = have;
		if (rc < 0)
			return rc;
	}
	return 0;
}

int pagescan_watch_reset(const struct pagescan_watch *watch, const void *start, size_t size)
{
	struct ps_page_region vec[VEC_LENGTH];
	uint64_t low, end;
	int rc = part(watch, start, size, &low, &end);

	while (rc >= 0 && low < end)
		rc = scan(watch, PAGESCAN_WATCH_RESET, &low, end, 0, vec);
	return rc < 0 ? rc : 0;
}

int pagescan_watch_adopt(struct pagescan_watch *watch, void *address, size_t size)
{
	struct pagescan_watch made = {
		.address = address, .size = size, .page = ps_page_size()};
	uint64_t at = (uintptr_t)address;
	struct process *self;
	int rc;

	if (!watch)
		return -EFAULT;
	memset(watch, 0, sizeof(*watch));
	if (!size || at % made.page || whole(&made, size) < size || at + whole(&made, size) < at)
		return -EINVAL;
	rc = ready(&self);
	if (rc < 0)
		return rc;
	made.process = self->which;
	made.pagemap = self->pagemap;
	made.avoid = self->avoid;
	/* Without huge pages one store marks one page; EINVAL: the kernel has no huge pages. */
	if (madvise(address, whole(&made, size), MADV_NOHUGEPAGE) && errno != EINVAL)
		return -errno;
	rc = ps_uffd_register(self->uffd, at, at + whole(&made, size));
	if (rc < 0)
		return rc;
	/* Pages populated before, by their owner or by mlockall(2), do not count as written. */
	rc = pagescan_watch_reset(&made, address, size);
	if (rc < 0) {
		ps_uffd_unregister(self->uffd, at, at + whole(&made, size));
		return rc;
	}
	*watch = made;
	return 0;
}

int pagescan_watch_create(struct pagescan_watch *watch, size_t size)
{
	void *memory;
	int rc;

	if (!watch)
		return -EFAULT;
	memset(watch, 0, sizeof(*watch));
	if (!size)
		return -EINVAL;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	rc = pagescan_watch_adopt(watch, memory, size);
	if (rc < 0)
		munmap(memory, size);
	else
		watch->created = 1;
	return rc;
}

int pagescan_watch_destroy(struct pagescan_watch *watch)
{
	struct pagescan_watch old;
	uint64_t at;

	if (!watch)
		return -EFAULT;
	if (!watch->address)
		return -EINVAL;
	old = *watch;
	memset(watch, 0, sizeof(*watch));
	at = (uintptr_t)old.address;
	if (old.created)
		return munmap(old.address, old.size) ? -errno : 0;
	if (!is_ours(&old))
		return 0; /* plain memory already */
	return ps_uffd_unregister(atomic_load(&current)->uffd, at, at + whole(&old, old.size));
}

int64_t ps_watch_get(const struct pagescan_watch *watch, int reset, uint64_t start, uint64_t size,
		     uint64_t addresses, uint64_t room)
{
	size_t count = room, granularity;
	int rc = pagescan_watch_get(watch, reset ? PAGESCAN_WATCH_RESET : 0,
				    (void *)(uintptr_t)start, size, (void **)(uintptr_t)addresses,
				    &count, &granularity);

	return rc < 0 ? rc : (int64_t)count;
}

int ps_watch_reset(const struct pagescan_watch *watch, uint64_t start, uint64_t size)
{
	return pagescan_watch_reset(watch, (void *)(uintptr_t)start, size);
}
