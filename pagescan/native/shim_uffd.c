/* SPDX-License-Identifier: MIT */
/* The userfaultfd ioctls, one by one. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pace.h"
#include "shim.h"

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

int ps_uffd_unregister(int uffd, uint64_t start, uint64_t end)
{
	struct ps_uffdio_range range = {start, end - start};

	return result(ioctl(uffd, PS_UFFDIO_UNREGISTER, &range));
}

/* 1: the first page is of a mapping that is registered, in the address space of pagemap. */
static int is_registered(int pagemap, uint64_t start)
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
	int before = is_registered(pagemap, start), after, error;

	if (before)
		return before < 0 ? before : -EBUSY;
	error = ps_uffd_register(uffd, start, end);
	if (error < 0)
		return error;
	after = is_registered(pagemap, start);
	error = ps_uffd_unregister(uffd, start, end);
	return error < 0 ? error : after;
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
