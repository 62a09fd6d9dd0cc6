/* SPDX-License-Identifier: MIT */
/*
 * Takes a userfaultfd out of a live process: one of its threads is made to call userfaultfd(2) with a
 * system call instruction that is there already, the descriptor is pulled over with pidfd_getfd(2) and
 * closed there, and the thread goes on where it was. No code is changed, no memory written.
 *
 * This is the plain way: registers and signal mask are kept by us and put back by us. The rules that
 * make it exact while we live:
 *   - the mask is full while foreign code runs, so no handler does;
 *   - the last stop before the registers go back is an EVENT_STOP, inside get_signal(): there the
 *     kernel itself judges an interrupted call by the -ERESTART* in rax, pending signals included;
 *   - never PTRACE_SINGLESTEP, whose flag outlives a dead tracer; TRACESYSGOOD, so that a dead
 *     tracer's system call stop is not taken for a SIGTRAP;
 *   - every wait is bounded. A thread that does not stop is left alone: it is released when the
 *     surgeon's thread, the tracer, ends.
 */
#define _GNU_SOURCE
#include "attach.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "shim.h"

#if defined(__x86_64__)
#include <sys/user.h>

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK | (int)PS_UFFD_USER_MODE_ONLY)
#define CODE_64_BIT 0x33
#define MAX_THREADS 64
#define YIELD_NS 100000u
#define THREAD_WAIT_NS 250000000u

struct surgery {
	struct ps_attach *call;
	int memory; /* /proc/PID/mem, read-only */
	uint64_t gadget;
	uint64_t deadline;
	pid_t tid;
	struct user_regs_struct saved;
	uint64_t mask;
};

static bool is_event_stop(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

static bool is_syscall_stop(int status)
{
	return WSTOPSIG(status) == (SIGTRAP | 0x80);
}

static bool peek(const struct surgery *s, uint64_t address, void *ret, size_t size)
{
	return pread(s->memory, ret, size, (off_t)address) == (ssize_t)size;
}

/* Waits for the thread's next stop; 0, -ETIMEDOUT, or -ESRCH when it has ended. */
static int wait_for_stop(const struct surgery *s, uint64_t until, int *status)
{
	uint64_t begun = ps_now_ns(), now = begun;

	if (until > s->deadline)
		until = s->deadline;
	for (;; now = ps_now_ns()) {
		struct timespec nap = {0, 20000};
		pid_t found = waitpid(s->tid, status, __WALL | WNOHANG);

		if (found == s->tid)
			return WIFSTOPPED(*status) ? 0 : -ESRCH;
		if (found < 0)
			return -ESRCH;
		if (now > until)
			return -ETIMEDOUT;
		/* Most stops are there in 20 us, and a nap lasts 60: yield first, to the target too. */
		if (now - begun < YIELD_NS)
			sched_yield();
		else
			nanosleep(&nap, NULL);
	}
}

/* Lets it run with `request` until a stop of our own asking; signals on the way are passed on. */
static int run_until(const struct surgery *s, int request, bool (*wanted)(int status))
{
	long signal = 0;

	for (;;) {
		int status, error;

		if (ptrace(request, s->tid, NULL, (void *)signal) < 0)
			return -errno;
		error = wait_for_stop(s, s->deadline, &status);
		if (error)
			return error;
		if (wanted(status))
			return 0;
		/* With a full mask only SIGSTOP comes; it takes effect when we let go. */
		signal = is_event_stop(status) || is_syscall_stop(status) ? 0 : WSTOPSIG(status);
	}
}

/* Makes the stopped thread do one system call, and leaves it in an EVENT_STOP behind it. */
static int call_in_target(const struct surgery *s, uint64_t number, uint64_t argument, int64_t *ret)
{
	struct user_regs_struct regs = s->saved;
	int error;

	regs.rip = s->gadget;
	regs.rax = number;
	regs.rdi = argument;
	regs.orig_rax = (unsigned long)-1; /* no call is being restarted */
	if (ptrace(PTRACE_SETREGS, s->tid, NULL, &regs) < 0)
		return -errno;
	error = run_until(s, PTRACE_SYSCALL, is_syscall_stop);
	if (error)
		return error;
	do {
		if (ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL) < 0)
			return -errno;
		error = run_until(s, PTRACE_CONT, is_event_stop);
		if (error)
			return error;
		if (ptrace(PTRACE_GETREGS, s->tid, NULL, &regs) < 0)
			return -errno;
	} while (regs.rip != s->gadget + 2);
	*ret = (int64_t)regs.rax;
	return 0;
}

/* A thread in a restartable sequence must not find itself still in it: the kernel would not know. */
static void leave_rseq(struct surgery *s)
{
	struct {
		uint64_t pointer;
		uint32_t size, signature, flags, pad;
	} area;
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} sequence;
	uint64_t at;

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, s->tid, (void *)sizeof(area), &area) <= 0)
		return;
	if (!area.pointer || !peek(s, area.pointer + 8, &at, sizeof(at)) || !at ||
	    !peek(s, at, &sequence, sizeof(sequence)))
		return;
	if (s->saved.rip - sequence.start < sequence.length)
		s->saved.rip = sequence.abort;
}

/* Reads one hexadecimal or decimal field of a status file; fallback where there is none. */
static uint64_t status_field(const struct surgery *s, const char *name, int base, uint64_t fallback)
{
	char path[64], text[8192];
	const char *at;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", s->call->pid, s->tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fallback;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return fallback;
	text[length] = 0;
	at = strstr(text, name);
	return at ? strtoull(at + strlen(name), NULL, base) : fallback;
}

/*
 * Some calls return EINTR for the bare interruption (signal(7)). Where that cannot be told from never
 * having been interrupted, no timeout and nothing pending, they are made to start over.
 */
static void start_over(struct surgery *s)
{
	struct user_regs_struct *regs = &s->saved;
	bool endless;

	if ((int64_t)regs->rax != -EINTR)
		return;
	switch ((int64_t)regs->orig_rax) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
		endless = (int)regs->r10 < 0;
		break;
	case SYS_rt_sigtimedwait:
		endless = !regs->rdx;
		break;
	case SYS_semop:
		endless = true;
		break;
	case 441: /* epoll_pwait2 */
		endless = !regs->r10;
		break;
	default:
		return;
	}
	if (endless && !((status_field(s, "\nSigPnd:", 16, 0) | status_field(s, "\nShdPnd:", 16, 0)) &
			 ~s->mask)) {
		regs->rip -= 2;
		regs->rax = regs->orig_rax;
		regs->orig_rax = (unsigned long)-1;
	}
}

/* Two calls in the stopped thread, userfaultfd and close; everything is put back, come what may. */
static int operate(struct surgery *s)
{
	uint64_t everything = ~(uint64_t)0;
	int64_t there = -1, closed = -1;
	int error, undone;

	s->call->step = PS_STEP_CALL;
	if (ptrace(PTRACE_SETSIGMASK, s->tid, (void *)sizeof(s->mask), &everything) < 0)
		return -errno;
	error = call_in_target(s, SYS_userfaultfd, (uint64_t)UFFD_FLAGS, &there);
	if (!error && there < 0)
		error = (int)there;
	if (!error) {
		int pidfd = (int)syscall(SYS_pidfd_open, s->call->pid, 0);

		s->call->step = PS_STEP_TAKE;
		s->call->uffd = (int)syscall(SYS_pidfd_getfd, pidfd, (int)there, 0);
		if (s->call->uffd < 0)
			error = -errno;
		if (pidfd >= 0)
			close(pidfd);
		undone = call_in_target(s, SYS_close, (uint64_t)there, &closed);
		if (undone || closed)
			s->call->left_fd = (int)there;
		if (!error)
			error = undone;
	}
	ptrace(PTRACE_SETSIGMASK, s->tid, (void *)sizeof(s->mask), &s->mask);
	if (ptrace(PTRACE_SETREGS, s->tid, NULL, &s->saved) < 0 && !error)
		error = -errno;
	return error;
}

/* Seizes and stops one thread and operates on it; -EAGAIN: try another one. */
static int try_thread(struct surgery *s)
{
	long options = PTRACE_O_TRACESYSGOOD;
	uint64_t begun;
	int status, error;

	s->call->tid = s->tid;
	s->call->attempts++;
	s->call->step = PS_STEP_SEIZE;
	if (status_field(s, "\nSeccomp:", 10, 0)) {
		options |= PTRACE_O_SUSPEND_SECCOMP;
		s->call->step = PS_STEP_SECCOMP;
	}
	if (ptrace(PTRACE_SEIZE, s->tid, NULL, (void *)options) < 0)
		return errno == ESRCH ? -EAGAIN : -errno;
	s->call->step = PS_STEP_STOP;
	begun = ps_now_ns();
	ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL);
	for (;;) {
		error = wait_for_stop(s, begun + THREAD_WAIT_NS, &status);
		if (error)
			return -EAGAIN; /* not stopped, so not to be detached: see the top */
		if (is_event_stop(status))
			break;
		/* A signal came first: it is delivered, once, and the stop follows. */
		ptrace(PTRACE_CONT, s->tid, NULL, (void *)(long)WSTOPSIG(status));
	}
	if (ptrace(PTRACE_GETREGS, s->tid, NULL, &s->saved) < 0 ||
	    ptrace(PTRACE_GETSIGMASK, s->tid, (void *)sizeof(s->mask), &s->mask) < 0) {
		error = -errno;
	} else if (s->saved.cs != CODE_64_BIT) {
		s->call->step = PS_STEP_ABI;
		error = -ENOEXEC;
	} else {
		leave_rseq(s);
		start_over(s);
		error = operate(s);
	}
	ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
	s->call->stopped_ns += ps_now_ns() - begun;
	return error;
}

/* The vdso is there in every 64-bit process, and has system call instructions of its own. */
static int find_gadget(struct surgery *s)
{
	unsigned char code[16384];
	char path[64], *line = NULL;
	uint64_t start = 0, end = 0;
	size_t room = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", s->call->pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!end && getline(&line, &room, maps) > 0)
		if (strstr(line, "[vdso]"))
			sscanf(line, "%lx-%lx", &start, &end);
	free(line);
	fclose(maps);
	if (end - start > sizeof(code))
		end = start + sizeof(code);
	if (end == start || !peek(s, start, code, end - start))
		return -ENOENT;
	for (size_t i = 0; i + 1 < end - start; i++) {
		if (code[i] == 0x0f && code[i + 1] == 0x05) {
			s->gadget = start + i;
			return 0;
		}
	}
	return -ENOENT;
}

static int try_threads(struct surgery *s)
{
	pid_t tids[MAX_THREADS] = {s->call->pid};
	int count = 1, error = -ESRCH;
	struct dirent *entry;
	char path[64];
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", s->call->pid);
	tasks = opendir(path);
	if (!tasks)
		return -errno;
	while (count < MAX_THREADS && (entry = readdir(tasks))) {
		pid_t tid = atoi(entry->d_name);

		if (tid > 0 && tid != s->call->pid)
			tids[count++] = tid;
	}
	closedir(tasks);
	for (int i = 0; i < count && ps_now_ns() < s->deadline; i++) {
		s->tid = tids[i];
		error = try_thread(s);
		if (error != -EAGAIN)
			return error;
	}
	return s->call->step == PS_STEP_STOP ? -ETIMEDOUT : error == -EAGAIN ? -ESRCH : error;
}

static void *surgeon(void *argument)
{
	struct surgery *s = argument;
	char path[64];
	int error;

	prctl(PR_SET_TIMERSLACK, 1); /* this thread's: short naps are to be short */
	s->call->step = PS_STEP_OPEN;
	snprintf(path, sizeof(path), "/proc/%d/mem", s->call->pid);
	s->memory = open(path, O_RDONLY | O_CLOEXEC);
	if (s->memory < 0)
		return (void *)(intptr_t)-errno;
	s->call->step = PS_STEP_GADGET;
	error = find_gadget(s);
	if (!error)
		error = try_threads(s);
	close(s->memory);
	return (void *)(intptr_t)error;
}

int ps_attach(struct ps_attach *call)
{
	struct surgery s = {
		.call = call,
		.deadline = ps_now_ns() + (uint64_t)call->timeout_ms * 1000000u,
	};
	sigset_t all, before;
	pthread_t thread;
	void *result;
	int error;

	call->uffd = call->left_fd = -1;
	call->method = PS_METHOD_PLAIN;
	call->attempts = 0;
	call->stopped_ns = 0;
	/* A thread of its own, with every signal blocked: when it ends, the kernel lets go of all. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, surgeon, &s);
	if (!error) {
		pthread_join(thread, &result);
		error = (int)(intptr_t)result;
	} else {
		error = -error;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!error)
		call->step = PS_STEP_DONE;
	return error;
}

#else

int ps_attach(struct ps_attach *call)
{
	call->uffd = call->left_fd = -1;
	call->step = PS_STEP_ARCH;
	return -ENOSYS;
}

#endif
