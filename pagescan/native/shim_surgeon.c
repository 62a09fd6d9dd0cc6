/* SPDX-License-Identifier: MIT */
/*
 * The surgeon: a process that is made for one attach, performs it (shim_attach.c), and ends.
 *
 * It is a separate process because it may have to wait for an unlimited time: for a target whose exec
 * does not end, or for a page of a file on a dead server. A process can be killed, and a kill does no
 * harm at any instant. A kernel timer kills the surgeon, also while it is stopped or frozen; the caller
 * kills it too, at the deadline or after a Ctrl-C. Its tracees do not belong to the caller's process,
 * which may call waitpid(-1). It ends without a SIGCHLD, and is in a session of its own, so that Ctrl-Z
 * does not stop it.
 *
 * It shares the caller's memory (CLONE_VM). fork(2) would copy page tables, and then each page that the
 * caller writes: for 2 GiB of small pages 0.4 s, and 2.6 s for the writes, while clone(2) took 3 ms
 * (medians, on a busy machine). Sharing has these consequences:
 *   - the surgeon may be killed at any instruction, so it takes no lock: it uses no malloc, stdio or
 *     opendir, only system calls on memory prepared before (ps_room). All its memory is in one mapping,
 *     which the caller allocates and frees;
 *   - errno and the like belong to a thread: a second thread of the caller, the attendant, lends its
 *     own, and sleeps in the meantime (CLONE_VFORK);
 *   - it has a descriptor table of its own, which ends with it. Copies of the caller's descriptors are
 *     closed first, because closing one may wait for a server. The userfaultfd is sent through a socket:
 *     pidfd_getfd(2) from the caller would be refused if the caller is not dumpable (setuid(2)).
 *
 * With Yama's scope 1, a process may only trace its descendants, and the surgeon has no descendants. A
 * program that pagescan started has allowed the caller and its descendants (PR_SET_PTRACER). For another
 * child of the caller the attendant itself performs the attach (by_thread). A thread cannot be killed:
 * if it hangs, it is left alone, with all the memory that it uses.
 */
#define _GNU_SOURCE
#include "attach.h"
#include "tracer.h"

#if defined(__x86_64__)
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define STACK_SIZE (256u << 10)
#define ROOM_MOST (256u << 20) /* address space; a target with 65,530 mappings takes 20 MiB */
#define ROOM_LEAST (8u << 20)
#define MS 1000000u
#define GRACE_NS (500u * MS)	     /* the surgeon's own timer comes first */
#define PLAIN_GRACE_NS (3000u * MS)  /* a kill would do harm: only a hanging surgeon is killed */
#define DYING_NS (1000u * MS)
#define STEP_NS (5u * MS)

enum state {
	WORKING,
	ENDED, /* the surgeon has ended */
};

/* All memory of one attach, in one mapping: this, the surgeon's stack, and its room. */
struct ps_theatre {
	struct ps_attach call;
	struct surgery surgery;
	_Atomic uint32_t state;
	_Atomic int surgeon; /* its pidfd, or -1 */
	int error;
	int ends[2]; /* a socket: the caller's end, the surgeon's */
	pthread_t attendant;
	uint64_t kill_at;
	size_t size;
	uint8_t stack[STACK_SIZE] __attribute__((aligned(64)));
	uint8_t room[] __attribute__((aligned(64)));
};

/* Returns when the surgeon has ended, when the time is up, or after a signal. */
static void wait_for_end(struct ps_theatre *t, uint64_t ns)
{
	struct timespec most = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	syscall(SYS_futex, &t->state, FUTEX_WAIT_PRIVATE, WORKING, &most, NULL, 0);
}

/* Leaves the surgeon a table with one descriptor, and nothing of the caller's at 0, 1 and 2. */
static int leave_descriptors(int keep)
{
	int fd;

	if (syscall(SYS_close_range, keep + 1, ~0u, CLOSE_RANGE_UNSHARE) < 0 ||
	    (keep && syscall(SYS_close_range, 0, keep - 1, 0) < 0))
		return -errno;
	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
	return 0;
}

static int prepare(struct surgery *s, int socket)
{
	struct sigevent kill = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	int error = leave_descriptors(socket);

	if (error)
		return error;
	if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &kill, &s->timer) < 0)
		return -errno;
	/* its own setting: SIGCHLD would not be sent if the caller ignores it */
	signal(SIGCHLD, SIG_DFL);
	setsid();
	return 0;
}

/* -1: no descriptor. */
static int receive(int socket)
{
	char byte;
	int fd;

	ps_receive_message(socket, &byte, sizeof(byte), &fd);
	return fd;
}

static int surgeon(void *argument)
{
	struct ps_theatre *t = argument;
	int failure = 0, error = prepare(&t->surgery, t->ends[1]);

	if (!error)
		error = ps_operate(&t->surgery);
	if (t->call.uffd >= 0)
		failure = ps_send_message(t->ends[1], "", 1, t->call.uffd);
	t->error = error ? error : failure;
	return 0;
}

static void *attend(void *argument)
{
	struct ps_theatre *t = argument;

	if (t->call.by_thread) {
		t->error = ps_operate(&t->surgery);
	} else if (clone(surgeon, t->stack + STACK_SIZE, CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_PIDFD,
			 t, (int *)&t->surgeon) < 0) {
		t->error = -errno;
	}
	atomic_store(&t->state, ENDED);
	syscall(SYS_futex, &t->state, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
	return NULL;
}

static struct ps_theatre *make_theatre(const struct ps_attach *call)
{
	struct ps_theatre *t = MAP_FAILED;
	size_t size = 2u * ROOM_MOST;

	while (t == MAP_FAILED && (size /= 2) >= ROOM_LEAST)
		t = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t == MAP_FAILED)
		return NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, t->ends) < 0) {
		munmap(t, size);
		return NULL;
	}
	madvise(t, size, MADV_NOHUGEPAGE);
	madvise(t, size, MADV_DONTFORK);
	t->size = size;
	t->call = *call;
	ps_begin_surgery(&t->surgery, &t->call, t->room, size - sizeof(*t));
	t->surgeon = -1;
	t->error = -EINPROGRESS; /* valid if it is killed */
	t->kill_at = ps_now_ns() + (uint64_t)call->timeout_ms * MS + GRACE_NS;
	return t;
}

static void clear(struct ps_theatre *t)
{
	close(t->ends[0]);
	close(t->ends[1]);
	munmap(t, t->size);
}

int ps_attach_begin(const struct ps_attach *call, struct ps_theatre **ret)
{
	struct ps_theatre *t = make_theatre(call);
	sigset_t all, before;
	int error;

	if (!t)
		return -errno;
	sigfillset(&all); /* the surgeon has the mask of the attendant */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&t->attendant, NULL, attend, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		clear(t);
		return -error;
	}
	*ret = t;
	return 0;
}

static void kill_surgeon(struct ps_theatre *t)
{
	if (t->surgeon >= 0)
		syscall(SYS_pidfd_send_signal, t->surgeon, SIGKILL, NULL, 0);
}

/* The time of the kill: later if a kill would do harm. */
static bool is_time_to_kill(const struct ps_theatre *t)
{
	return ps_now_ns() > t->kill_at + (t->surgery.plain_standing ? PLAIN_GRACE_NS : 0);
}

int ps_attach_wait(struct ps_theatre *t, int32_t ms)
{
	wait_for_end(t, (uint64_t)ms * MS);
	return t->state == ENDED || is_time_to_kill(t);
}

/* Kills the surgeon, if it runs, and waits for its end; false: it does not end. */
static bool is_ended(struct ps_theatre *t)
{
	while (t->state != ENDED && t->surgery.plain_standing && !is_time_to_kill(t))
		wait_for_end(t, STEP_NS);
	for (uint64_t until = ps_now_ns() + DYING_NS; t->state != ENDED;) {
		if (ps_now_ns() > until)
			return false;
		kill_surgeon(t);
		wait_for_end(t, STEP_NS);
	}
	return true;
}

/* Whether the surgeon was killed by its caller. */
static bool was_late(const struct ps_theatre *t)
{
	uint64_t now = ps_now_ns(), own = t->surgery.killed_at;

	return now > t->kill_at || (own && now >= own);
}

static int reap(struct ps_theatre *t)
{
	siginfo_t info = {.si_status = 0}; /* a host that waits for all has it */

	if (t->surgeon >= 0) {
		while (waitid(P_PIDFD, (id_t)t->surgeon, &info, WEXITED | __WALL) < 0 &&
		       errno == EINTR)
			;
		if (info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED)
			t->call.killed_by = info.si_status;
		close(t->surgeon);
	}
	if (t->error != -EINPROGRESS)
		return t->error;
	return was_late(t) ? -ETIMEDOUT : -ECANCELED;
}

int ps_attach_end(struct ps_theatre *t, struct ps_attach *ret)
{
	int error;

	if (!is_ended(t)) { /* leave it alone: it may still write to the shared memory */
		pthread_detach(t->attendant);
		*ret = t->call;
		ret->uffd = -1;
		return -ETIMEDOUT;
	}
	pthread_join(t->attendant, NULL);
	error = reap(t);
	*ret = t->call;
	if (!t->call.by_thread)
		ret->uffd = receive(t->ends[0]);
	if (!error)
		ret->step = PS_STEP_DONE;
	if (!error && ret->uffd < 0) { /* it was sent, but no descriptor is free here */
		ret->step = PS_STEP_TAKE;
		error = -EMFILE;
	}
	if (t->surgery.standing_since)
		ret->stopped_ns += ps_now_ns() - t->surgery.standing_since;
	clear(t);
	return error;
}

int ps_can_attach(void)
{
	return 1;
}
#else
#include <errno.h>

int ps_attach_begin(const struct ps_attach *call, struct ps_theatre **ret)
{
	return -ENOSYS;
}

int ps_attach_wait(struct ps_theatre *t, int32_t ms)
{
	return 1;
}

int ps_attach_end(struct ps_theatre *t, struct ps_attach *ret)
{
	ret->step = PS_STEP_ARCH;
	return -ENOSYS;
}

int ps_can_attach(void)
{
	return 0;
}
#endif
