/* SPDX-License-Identifier: MIT */
/* The userfaultfd ioctls, one by one. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pace.h"
#include "scan.h"
#include "shim.h"

/* How far a populated page is looked for at first, and when that found page tables that are empty. */
#define REACH_MIN (256ull << 20)
#define EMPTY_TABLES_NS 20000u

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

/* Where the next populated page of a registered mapping is; `end` if there is none before it. -errno. */
static int64_t first_populated(int pagemap, uint64_t at, uint64_t end)
{
	struct ps_page_region first;
	struct ps_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = at,
		.end = end,
		.vec = (uint64_t)(uintptr_t)&first,
		.vec_len = 1,
		.max_pages = 1,
		.category_mask = PS_PAGE_IS_WPALLOWED,
		.category_anyof_mask = PS_PAGE_IS_PRESENT | PS_PAGE_IS_SWAPPED,
		.return_mask = PS_PAGE_IS_PRESENT,
	};
	int found = ioctl(pagemap, PS_PAGEMAP_SCAN, &arg);

	if (found < 0)
		return -errno;
	return (int64_t)(found ? first.start : end);
}

int ps_uffd_unregister(int uffd, uint64_t start, uint64_t end)
{
	struct ps_uffdio_range range = {start, end - start};

	return result(ioctl(uffd, PS_UFFDIO_UNREGISTER, &range));
}

int ps_uffd_is_registered(int pagemap, uint64_t start)
{
	struct ps_page_region region;
	struct ps_pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = start,
		.end = start + 4096,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_mask = PS_PAGE_IS_WPALLOWED,
		.return_mask = PS_PAGE_IS_WPALLOWED,
	};

	return result(ioctl(pagemap, PS_PAGEMAP_SCAN, &scan));
}

int ps_uffd_is_of(int uffd, int pagemap, uint64_t start, uint64_t end)
{
	int before = ps_uffd_is_registered(pagemap, start), after, error;

	if (before)
		return before < 0 ? before : -EBUSY;
	error = ps_uffd_register(uffd, start, end);
	if (error < 0)
		return error;
	after = ps_uffd_is_registered(pagemap, start);
	error = ps_uffd_unregister(uffd, start, end);
	return error < 0 ? error : after;
}

/*
 * UFFDIO_UNREGISTER holds the lock for writing and visits each entry: 43 us for each MiB of pages of the usual
 * size. So a slice is so much of what is populated, and the hole in front of it: a hole costs nothing.
 */
int ps_uffd_unregister_slices(int uffd, int pagemap, uint64_t start, uint64_t end, uint64_t align,
			      struct ps_pace *pace, uint64_t *done, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns(), before, reach = REACH_MIN, ns = 0;

	for (*done = start; *done < end;) {
		uint64_t looked = *done, stop;
		int64_t next;
		int rc;

		for (;; looked = (uint64_t)next) {
			stop = end - looked > reach ? looked + reach : end;
			before = ps_now_ns();
			next = first_populated(pagemap, looked, stop);
			if (next < 0)
				return (int)next;
			ns = ps_now_ns() - before;
			ps_pace_call(pace, cost, 0, ns);
			if ((uint64_t)next < stop || stop == end || ns > EMPTY_TABLES_NS)
				break;
			reach *= 2;
		}
		/* Page tables without a page are visited, too. */
		if (ns > EMPTY_TABLES_NS)
			reach = REACH_MIN;
		stop = ps_pace_slice(pace, (uint64_t)next, end, align);
		before = ps_now_ns();
		rc = ps_uffd_unregister(uffd, *done, stop);
		if (rc == -ENOMEM) { /* as many mappings as it may have: none can be split */
			stop = end;
			rc = ps_uffd_unregister(uffd, *done, stop);
		}
		if (rc < 0 && rc != -EINVAL) /* EINVAL: unmapped by now */
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
