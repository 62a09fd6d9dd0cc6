/* SPDX-License-Identifier: MIT */
/* The userfaultfd ioctls, one by one. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "maps.h"
#include "pace.h"
#include "page.h"
#include "scan.h"
#include "shim.h"

/* Number of page tables in which a populated page is searched at first. */
#define FIRST_TABLES 128u
/* A search that takes longer has met empty page tables. */
#define EMPTY_TABLES_NS 20000u

static const struct ps_masks registered = {
	.mask = PS_PAGE_IS_WPALLOWED,
	.returned = PS_PAGE_IS_WPALLOWED,
};

static int result(int rc)
{
	return rc < 0 ? -errno : rc;
}

int ps_uffd_open(void)
{
	return result((int)syscall(SYS_userfaultfd,
				   O_CLOEXEC | O_NONBLOCK | (int)PS_UFFD_USER_MODE_ONLY));
}

int ps_uffd_api(int uffd, uint64_t features)
{
	struct ps_uffdio_api api = {.api = PS_UFFD_API, .features = features};

	return result(ioctl(uffd, PS_UFFDIO_API, &api));
}

int ps_uffd_register(int uffd, uint64_t start, uint64_t end)
{
	struct ps_uffdio_register reg = {
		.range = {start, end - start},
		.mode = PS_UFFDIO_REGISTER_MODE_WP,
	};

	return result(ioctl(uffd, PS_UFFDIO_REGISTER, &reg));
}

int ps_uffd_register_timed(int uffd, uint64_t start, uint64_t end, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns();
	int error = ps_uffd_register(uffd, start, end);

	ps_cost_call(cost, ps_now_ns() - begun);
	return error;
}

/* Whether the mapping has the borders that it had, apart from those that the part does not touch. */
static bool is_the_same(const struct ps_procmap_query *now, const struct ps_listed *part)
{
	bool below = part->start == part->low ? now->vma_start == part->low : now->vma_start <= part->start;
	bool above = part->end == part->high ? now->vma_end == part->high : now->vma_end >= part->end;

	return below && above;
}

static bool is_alike(const struct ps_procmap_query *now, const struct ps_listed *part)
{
	bool shared = now->vma_flags & PS_PROCMAP_QUERY_VMA_SHARED;

	return now->inode == part->inode && shared == part->shared;
}

static int register_paced(int uffd, uint64_t start, uint64_t end, struct ps_pace *pace,
			  struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns();
	int error = ps_uffd_register(uffd, start, end);

	ps_pace_call(pace, cost, 0, ps_now_ns() - begun);
	return error;
}

static int register_part(int uffd, int maps, const struct ps_listed *part, struct ps_pace *pace,
			 struct ps_cost *cost)
{
	struct ps_procmap_query now;
	int error, found = -EINVAL;

	for (uint64_t at = part->start; at < part->end; at = now.vma_end) {
		error = maps < 0 ? -ENOTTY : ps_ask_mapping(maps, at, &now, cost);
		if (error == -ENOTTY || (!error && is_the_same(&now, part)))
			return register_paced(uffd, part->start, part->end, pace, cost);
		if (error == -ENOENT || (!error && now.vma_start >= part->end))
			break;
		if (error < 0)
			return error;
		if (!is_alike(&now, part))
			continue;
		error = register_paced(uffd, now.vma_start, now.vma_end, pace, cost);
		if (error < 0 && error != -EINVAL) /* EINVAL: it has been unmapped */
			return error;
		if (!error)
			found = 0;
	}
	return found;
}

int ps_uffd_register_parts(int uffd, int maps, const struct ps_listed *parts, uint64_t count,
			   struct ps_pace *pace, uint64_t *done, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns();

	for (; *done < count; ++*done) {
		int error = register_part(uffd, maps, &parts[*done], pace, cost);

		if (error < 0)
			return error;
		if (ps_now_ns() - begun > PS_BREATHER_NS) {
			++*done;
			return 1;
		}
	}
	return 0;
}

int ps_uffd_unregister(int uffd, uint64_t start, uint64_t end)
{
	struct ps_uffdio_range range = {start, end - start};

	return result(ioctl(uffd, PS_UFFDIO_UNREGISTER, &range));
}

int ps_uffd_is_registered(int pagemap, uint64_t start)
{
	struct ps_page_region first;

	return ps_first_region(pagemap, start, start + ps_page_size(), &registered, &first);
}

static int is_registered_timed(int pagemap, uint64_t start, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns();
	int found = ps_uffd_is_registered(pagemap, start);

	ps_cost_call(cost, ps_now_ns() - begun);
	return found;
}

int ps_uffd_is_of(int uffd, int pagemap, uint64_t start, uint64_t end, struct ps_cost *cost)
{
	int before = is_registered_timed(pagemap, start, cost), after, error;
	uint64_t begun;

	if (before)
		return before < 0 ? before : -EBUSY;
	error = ps_uffd_register_timed(uffd, start, end, cost);
	if (error < 0)
		return error;
	after = is_registered_timed(pagemap, start, cost);
	begun = ps_now_ns();
	error = ps_uffd_unregister(uffd, start, end);
	ps_cost_call(cost, ps_now_ns() - begun);
	return error < 0 ? error : after;
}

/*
 * UFFDIO_UNREGISTER holds the lock for writing and visits each entry: 43 us per MiB of pages of the
 * usual size. So a slice has a fixed amount of populated memory, together with the hole in front of
 * it, which costs nothing.
 */
int ps_uffd_unregister_slices(int uffd, int pagemap, uint64_t start, uint64_t end, uint64_t align,
			      struct ps_pace *pace, uint64_t *done, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns(), before, ns = 0;
	uint64_t reach_min = FIRST_TABLES * ps_table_span(), reach = reach_min;

	for (*done = start; *done < end;) {
		uint64_t looked = *done, stop;
		int64_t next;
		int rc;

		for (;; looked = (uint64_t)next) {
			stop = end - looked > reach ? looked + reach : end;
			before = ps_now_ns();
			next = ps_next_populated(pagemap, looked, stop, &registered);
			if (next < 0)
				return (int)next;
			ns = ps_now_ns() - before;
			ps_pace_call(pace, cost, 0, ns);
			if ((uint64_t)next < stop || stop == end || ns > EMPTY_TABLES_NS)
				break;
			reach *= 2;
		}
		/* Empty page tables are visited, too. */
		if (ns > EMPTY_TABLES_NS)
			reach = reach_min;
		stop = ps_pace_slice(pace, (uint64_t)next, end, align);
		before = ps_now_ns();
		rc = ps_uffd_unregister(uffd, *done, stop);
		if (rc == -ENOMEM) { /* at its limit of mappings: none can be split */
			stop = end;
			rc = ps_uffd_unregister(uffd, *done, stop);
		}
		if (rc < 0 && rc != -EINVAL) /* EINVAL: it has been unmapped */
			return rc;
		before = ps_now_ns() - before;
		ps_pace_call(pace, cost, stop - (uint64_t)next, before);
		*done = stop;
		if (stop < end && ps_now_ns() - begun > PS_BREATHER_NS)
			return 1;
	}
	return 0;
}

int ps_uffd_protect(int uffd, uint64_t start, uint64_t end, int protect, uint64_t align,
		    struct ps_pace *pace, uint64_t *done, struct ps_cost *cost)
{
	for (*done = start; *done < end;) {
		uint64_t stop = ps_pace_slice(pace, *done, end, align), before = ps_now_ns();
		struct ps_uffdio_writeprotect wp = {
			.range = {*done, stop - *done},
			.mode = protect ? PS_UFFDIO_WRITEPROTECT_MODE_WP : 0,
		};

		if (ioctl(uffd, PS_UFFDIO_WRITEPROTECT, &wp) < 0)
			return -errno;
		ps_pace_call(pace, cost, stop - *done, ps_now_ns() - before);
		*done = stop;
	}
	return 0;
}
