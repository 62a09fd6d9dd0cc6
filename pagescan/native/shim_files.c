/* SPDX-License-Identifier: MIT */
/* Looks up files that a target names, without any effect on them: O_PATH, below its own root. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"

int ps_open_in_root(int root, const char *name, int follow)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS |
			   (follow ? 0ull : RESOLVE_NO_SYMLINKS),
	};
	int found = (int)syscall(SYS_openat2, root, name, &how, sizeof(how));

	return found < 0 ? -errno : found;
}
