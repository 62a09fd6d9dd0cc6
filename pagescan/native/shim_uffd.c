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
