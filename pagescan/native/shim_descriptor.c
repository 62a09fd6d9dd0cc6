/* SPDX-License-Identifier: MIT */
/*
 * Fetches the new userfaultfd, and tells it apart from other files.
 *
 * After userfaultfd(2) has returned, any thread of the target can replace the descriptor by another file.
 * So the fetched file is checked before it is used: it must be a userfaultfd that is not set up yet.
 * ps_uffd_is_of() checks whether it belongs to this address space, when the thread runs again. The
 * number is closed in the target only while it refers to that same file.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uapi.h"

#define PIDFD_THREAD O_EXCL /* Linux 6.9 */

static long compare(const struct surgery *s, pid_t pid, int type, int ours, int theirs)
{
	return syscall(SYS_kcmp, pid, s->tid, type, ours, theirs);
}

/* Opens access to this thread's descriptors, which may differ from the main thread's. */
int ps_open_table(struct surgery *s)
{
	s->own_fds = open("/proc/thread-self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s->table = (int)syscall(SYS_pidfd_open, s->tid, PIDFD_THREAD);
	if (s->table >= 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	if (s->tid != s->call->pid && compare(s, s->call->pid, KCMP_FILES, 0, 0) != 0)
		return -EOPNOTSUPP; /* a table of its own, or unknown */
	s->table = fcntl(s->pidfd, F_DUPFD_CLOEXEC, 0);
	return s->table < 0 ? -errno : 0;
}

void ps_close_table(struct surgery *s)
{
	if (s->table >= 0)
		close(s->table);
	if (s->own_fds >= 0)
		close(s->own_fds);
	s->table = s->own_fds = -1;
}

static bool is_userfaultfd(const struct surgery *s, int fd)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char number[16], text[64];

	snprintf(number, sizeof(number), "%d", fd);
	return readlinkat(s->own_fds, number, text, sizeof(text)) == sizeof(name) - 1 &&
	       !memcmp(text, name, sizeof(name) - 1);
}

/* Enables its features; -ESTALE: they already are, so it is not the new one. */
static int set_up(const struct surgery *s, int fd)
{
	if (ps_uffd_api(fd, PS_UFFD_FEATURES | s->call->features) == 0)
		return 0;
	return ps_uffd_api(fd, 0) == 0 ? -ENOTTY : -ESTALE;
}

/* Fetches the target's descriptor; -ESTALE: another file has replaced it. */
int ps_take(struct surgery *s, int64_t there)
{
	int fd, error = -ESTALE;

	s->call->step = PS_STEP_TAKE;
	fd = (int)syscall(SYS_pidfd_getfd, s->table, (int)there, 0);
	if (fd < 0)
		return errno == EBADF ? -ESTALE : -errno;
	if (is_userfaultfd(s, fd))
		error = set_up(s, fd);
	if (error)
		close(fd);
	else
		s->call->uffd = fd;
	PS_FAULT_STEP("taken");
	return error;
}

/* Whether that number still refers to the fetched file. */
enum ps_answer ps_is_still_there(const struct surgery *s, int64_t there)
{
	struct stat ours, theirs;
	char path[64];
	long result;

	if (s->call->uffd < 0)
		return PS_NOT_KNOWN;
	result = compare(s, (pid_t)syscall(SYS_gettid), KCMP_FILE, s->call->uffd, (int)there);
	if (result >= 0)
		return result ? PS_NO : PS_YES;
	if (errno == EBADF)
		return PS_NO;
	/* Without kcmp(2): each userfaultfd has its own inode. */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", s->call->pid, s->tid, (int)there);
	if (fstat(s->call->uffd, &ours) < 0 || stat(path, &theirs) < 0)
		return errno == ENOENT ? PS_NO : PS_NOT_KNOWN;
	return ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev ? PS_YES : PS_NO;
}
#endif
