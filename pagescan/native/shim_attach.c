/* SPDX-License-Identifier: MIT */
/*
 * Takes a userfaultfd out of a live process: one of its threads is made to call userfaultfd(2) with a
 * system call instruction that the target already has. The descriptor is fetched with pidfd_getfd(2) and
 * closed in the target, and the thread goes on where it was. No code and no data of the target is
 * changed. shim_surgeon.c runs this in a process that may be killed: the surgeon, "we" in this file.
 *
 * shim_gadgets_x86_64.c finds the instructions before anything is stopped. shim_frame_x86_64.c lays out
 * the stack from which the thread restores itself if we die in the middle. If that is not possible, the
 * plain method remains: only we can restore registers and mask. shim_remote.c reads and writes the
 * memory of the target.
 *
 * These rules make it exact, whether we live or die:
 *   - SETREGS first, then the full mask; on the way back the mask first, then SETREGS. A death between
 *     the two never leaves signals blocked: rsp is on the chain, which restores the mask;
 *   - the last stop before the registers go back is an EVENT_STOP, inside get_signal(): there the
 *     kernel itself judges an interrupted call by the -ERESTART* in rax, pending signals included;
 *   - never use PTRACE_SINGLESTEP, whose flag outlives a dead tracer; use TRACESYSGOOD, so that a
 *     system call stop of a dead tracer does not look like a SIGTRAP;
 *   - look at stops without reaping them, so that the signal of a signal stop survives a dead tracer;
 *   - use facts from before the stop only if the thread still lives in that address space;
 *   - bound every wait. A thread that does not stop is released by the end of the surgeon, its tracer;
 *     another surgeon tries the next thread. So there is one tracee at a time, and one that has ended is
 *     reaped: otherwise an exec of another thread would wait for that, and we would wait for the exec.
 */
#define _GNU_SOURCE
#include "attach.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "shim.h"

#if defined(__x86_64__)
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK | (int)PS_UFFD_USER_MODE_ONLY)
#define CODE_64_BIT 0x33
#define MAX_THREADS 64
#define YIELD_NS 100000u
#define THREAD_WAIT_NS 250000000u
#define CALL_WAIT_NS 1000000000u
#define LAST_WAIT_NS 10000000000u /* longer than pagescan lets the surgeon live */
#define STANDING_NS 1500000000u /* after that the thread can restore itself: see ps_kill_me_after */

static bool is_event_stop(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

static bool is_syscall_stop(int status)
{
	return WSTOPSIG(status) == (SIGTRAP | 0x80);
}

/*
 * Waits for a change of the tracee, or for a moment. Each stop causes a SIGCHLD, which is blocked
 * and stays pending. Sleeping gives our processor to the thread, even if we have the higher
 * priority. In a thread of another process the signal may go to any of its threads: that caller
 * asks again.
 */
static void rest(const struct surgery *s, uint64_t waited)
{
	const struct timespec nap = {0, 20000}, most = {0, 10000000};
	sigset_t child;

	if (s->call->by_thread) {
		if (waited < YIELD_NS)
			sched_yield();
		else
			nanosleep(&nap, NULL);
		return;
	}
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigtimedwait(&child, NULL, &most);
}

static void reap(const struct surgery *s)
{
	waitid(P_PID, (id_t)s->tid, NULL, WEXITED | WNOHANG | __WALL);
}

/*
 * Waits for the thread's next stop; 0, -ETIMEDOUT, or -ESRCH when it has ended. The stop is not
 * reaped (WNOWAIT): otherwise its signal would be lost if we died before we delivered it.
 */
static int wait_for_stop(const struct surgery *s, uint64_t until, int *status)
{
	uint64_t begun = ps_now_ns(), now = begun;

	if (until > s->deadline)
		until = s->deadline;
	for (;; now = ps_now_ns()) {
		siginfo_t info = {.si_pid = 0};

		if (waitid(P_PID, (id_t)s->tid, &info,
			   WEXITED | WSTOPPED | WNOWAIT | WNOHANG | __WALL) < 0)
			return -ESRCH;
		if (info.si_pid == s->tid && info.si_code == CLD_TRAPPED) {
			*status = info.si_status << 8 | 0x7f; /* in the form of waitpid(2) */
			return 0;
		}
		if (info.si_pid == s->tid) {
			reap(s);
			return -ESRCH;
		}
		if (now > until)
			return -ETIMEDOUT;
		rest(s, now - begun);
	}
}

/*
 * Lets it run with `request` until a stop that we have asked for. With a full mask only SIGSTOP can
 * come in between, and takes effect when we release the thread. Without it (rop) any signal can:
 * -EINTR, with the thread in its signal-delivery stop, and `*status` tells which signal.
 */
static int run_until(const struct surgery *s, int request, bool (*wanted)(int status), int *status)
{
	long signal = 0;

	for (;;) {
		int error;

		if (ptrace(request, s->tid, NULL, (void *)signal) < 0)
			return -errno;
		error = wait_for_stop(s, ps_now_ns() + CALL_WAIT_NS, status);
		if (error)
			return error;
		if (wanted(*status))
			return 0;
		signal = 0;
		if (is_event_stop(*status) || is_syscall_stop(*status))
			continue;
		if (s->chain && !s->masked)
			return -EINTR;
		signal = WSTOPSIG(*status);
	}
}

/* Waits for the stop that PTRACE_INTERRUPT asks for; signals on the way are delivered, once. */
static int stop(const struct surgery *s, int status, uint64_t until)
{
	for (;;) {
		int error;

		/*
		 * Status 0: no stop was seen yet. After a signal's stop, deliver the signal.
		 */
		long signal = is_syscall_stop(status) ? 0 : WSTOPSIG(status);

		if (status && ptrace(PTRACE_CONT, s->tid, NULL, (void *)signal) < 0 &&
		    errno != ESRCH) /* ESRCH: it is dying, and its end will be noticed */
			return -errno;
		error = wait_for_stop(s, until, &status);
		if (error || is_event_stop(status))
			return error;
	}
}

/*
 * A thread that does not reach its call, or does not return from it, is in a frozen or throttled
 * cgroup. In a frozen one of cgroup v2 it stops for its tracer all the same; in the others it may
 * not. Then its stack restores it, as if we had been killed. Without one we wait until we are.
 */
static void regain(struct surgery *s)
{
	s->deadline = ps_now_ns() + (s->chain ? THREAD_WAIT_NS : LAST_WAIT_NS);
	ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL);
	stop(s, 0, s->deadline);
}

/* Makes the stopped thread make one system call, and leaves it in an EVENT_STOP after it. */
static int call_in_target(struct surgery *s, uint64_t number, uint64_t argument, int64_t *ret)
{
	struct user_regs_struct regs = s->saved;
	uint64_t everything = ~(uint64_t)0;
	int error, status;

	regs.rip = s->chain ? s->gadgets.syscall_ret : s->gadgets.syscall;
	regs.rax = number;
	regs.rdi = argument;
	regs.orig_rax = (unsigned long)-1; /* no call is restarted */
	if (s->chain)
		regs.rsp = s->chain;
	PS_FAULT_STEP("chain");
	if (ptrace(PTRACE_SETREGS, s->tid, NULL, &regs) < 0)
		return -errno;
	PS_FAULT_STEP("registers");
	if (s->masked &&
	    ptrace(PTRACE_SETSIGMASK, s->tid, (void *)sizeof(everything), &everything) < 0)
		return -errno;
	PS_FAULT_STEP("mask");
	error = run_until(s, PTRACE_SYSCALL, is_syscall_stop, &status);
	PS_FAULT_STEP("entry");
	while (!error) {
		ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL);
		PS_FAULT_STEP("interrupt");
		error = run_until(s, PTRACE_CONT, is_event_stop, &status);
		if (!error && ptrace(PTRACE_GETREGS, s->tid, NULL, &regs) < 0)
			error = -errno;
		if (error ||
		    regs.rip == (s->chain ? s->gadgets.syscall_ret : s->gadgets.syscall) + 2)
			break;
	}
	PS_FAULT_STEP("called");
	if (error == -ETIMEDOUT)
		regain(s);
	if (error == -EINTR) {
		/* The signal is delivered to the restored thread, which is then stopped again. */
		if (ptrace(PTRACE_SETREGS, s->tid, NULL, &s->saved) < 0)
			return -errno;
		PS_FAULT_STEP("signal");
		ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL);
		error = stop(s, status, s->deadline);
		return error ? error : -EINTR;
	}
	*ret = (int64_t)regs.rax;
	return error;
}

#define RANDOM_WORDS 2u /* they are the first witnesses */

static bool remember(struct surgery *s, size_t index, uint64_t address)
{
	if (!ps_peek(s, address, &s->witnesses[index].word, sizeof(uint64_t)))
		return false;
	s->witnesses[index].address = address;
	return true;
}

/*
 * Records the facts that tell this address space from a later one: the 16 random bytes that each
 * exec lays down, and the code that will be used. Without these bytes it could not be told.
 */
static int remember_address_space(struct surgery *s)
{
	const struct gadgets *g = &s->all_gadgets;
	const uint64_t code[] = {
		g->syscall, g->syscall_ret, g->restorer, g->pop_rax, g->pop_rdi,
	};
	Elf64_auxv_t vector[64];
	size_t count = ps_read_file(s, "auxv", vector, sizeof(vector)) / sizeof(*vector);
	bool known = false;

	for (size_t i = 0; i < sizeof(code) / sizeof(*code); i++)
		if (code[i] && !remember(s, RANDOM_WORDS + i, code[i] & ~(uint64_t)7))
			return -ESTALE;
	for (size_t i = 0; i < count; i++)
		if (vector[i].a_type == AT_RANDOM)
			known = remember(s, 0, vector[i].a_un.a_val) &&
				remember(s, 1, vector[i].a_un.a_val + sizeof(uint64_t));
	s->untold = !known; /* also for a 32-bit process, whose vector differs */
	return 0;
}

/*
 * Whether the stopped thread lives in the address space that was examined before the stop: it may
 * have called execve(2) in between, and our /proc/PID/mem would still be the old one's. The random
 * bytes may have changed (Go clears them as it starts), but not the code.
 */
static bool is_as_remembered(const struct surgery *s)
{
	for (size_t i = 0; i < sizeof(s->witnesses) / sizeof(*s->witnesses); i++) {
		const struct witness *witness = &s->witnesses[i];
		uint64_t word, ours;

		if (!witness->address)
			continue;
		errno = 0;
		word = (uint64_t)ptrace(PTRACE_PEEKDATA, s->tid, (void *)witness->address, NULL);
		if (errno || !ps_peek(s, witness->address, &ours, sizeof(ours)) || word != ours ||
		    (i >= RANDOM_WORDS && word != witness->word))
			return false;
	}
	return true;
}

static int refuse(struct surgery *s, int step, int error)
{
	s->call->step = step;
	s->unsuitable = true;
	return error;
}

/* Whether the stopped thread may be made to call. An unknown fact counts as a no. */
static int judge(struct surgery *s)
{
	enum ps_answer shadow_stack = ps_has_shadow_stack(s), may_call = ps_may_call(s);
	enum ps_answer filter = s->filter_counts ? ps_has_filter(s) : PS_NO;

	if (s->saved.cs != CODE_64_BIT || ps_is_in_foreign_call(s) != PS_NO)
		return refuse(s, PS_STEP_ABI, -ENOEXEC);
	if (s->untold)
		return refuse(s, PS_STEP_FACTS, -EIO);
	if (filter == PS_YES)
		return refuse(s, PS_STEP_SECCOMP, -EPERM);
	if (may_call == PS_NO)
		return refuse(s, PS_STEP_DISPATCH, -EPERM);
	if (filter == PS_NOT_KNOWN || may_call == PS_NOT_KNOWN || shadow_stack == PS_NOT_KNOWN ||
	    ps_leave_rseq(s) == PS_NOT_KNOWN)
		return refuse(s, PS_STEP_FACTS, -EIO);
	s->plain_only = shadow_stack == PS_YES;
	return 0;
}

/* Reads the registers and mask of the stopped thread, and lays out the stack that restores them. */
static int prepare(struct surgery *s)
{
	int error;

	ps_clear_chain(s); /* left by an attempt that a signal ended */
	s->chain = 0;
	s->masked = true;
	s->call->method = PS_METHOD_PLAIN;
	if (ptrace(PTRACE_GETREGS, s->tid, NULL, &s->saved) < 0 ||
	    ptrace(PTRACE_GETSIGMASK, s->tid, (void *)sizeof(s->mask), &s->mask) < 0)
		return -errno;
	error = judge(s);
	if (error)
		return error;
	ps_start_over(s);
	ps_build_chain(s);
	s->plain_standing = !s->chain;
	if (s->plain_standing)
		ps_kill_me_after(s, 0);
	return 0;
}

/*
 * Restores the state that prepare() read. A thread that does not stop for that is left to its stack,
 * which is then not touched: to set the registers without the mask, or to wipe the stack, would harm.
 */
static int put_back(struct surgery *s)
{
	int error = 0;

	PS_FAULT_STEP("closed");
	if (s->masked &&
	    ptrace(PTRACE_SETSIGMASK, s->tid, (void *)sizeof(s->mask), &s->mask) < 0)
		error = -errno;
	PS_FAULT_STEP("unmask");
	if (error && s->chain)
		return error;
	if (ptrace(PTRACE_SETREGS, s->tid, NULL, &s->saved) < 0)
		return -errno;
	s->plain_standing = false;
	PS_FAULT_STEP("restored");
	ps_clear_chain(s);
	PS_FAULT_STEP("cleared");
	return error;
}

/* Makes the thread close its userfaultfd; another file with that number is left alone. */
static int close_there(struct surgery *s, int64_t there, int64_t *closed)
{
	enum ps_answer answer = ps_is_still_there(s, there);

	if (answer == PS_YES)
		return call_in_target(s, SYS_close, (uint64_t)there, closed);
	if (answer == PS_NO)
		*closed = 0;
	return 0;
}

/*
 * Makes two calls in the stopped thread, userfaultfd and close; everything is restored in any case.
 * A signal that comes first (-EINTR) is delivered, and the rest is done from the state that it led
 * to.
 */
static int operate(struct surgery *s)
{
	int64_t there = -1, closed = -1;
	int error, taking = 0;

	do {
		error = prepare(s);
		if (error)
			break;
		s->call->step = PS_STEP_CALL;
		if (there < 0)
			error = call_in_target(s, SYS_userfaultfd, (uint64_t)UFFD_FLAGS, &there);
		if (!error && there < 0)
			error = (int)there;
		if (!error) {
			if (s->call->uffd < 0 && !taking)
				taking = ps_take(s, there);
			error = close_there(s, there, &closed);
		}
		if (error != -EINTR) {
			int undone = put_back(s);

			if (!error)
				error = undone;
		}
	} while (error == -EINTR && ps_now_ns() < s->deadline);
	if (there >= 0 && closed)
		s->call->left_fd = (int)there;
	return taking ? taking : error;
}

/* Sets options for the attach: at the seizing, or later for a thread that is traced and stopped. */
typedef long ps_set_options(pid_t tid, unsigned long options);

static long seize(pid_t tid, unsigned long options)
{
	return ptrace(PTRACE_SEIZE, tid, NULL, (void *)options);
}

static long set_options(pid_t tid, unsigned long options)
{
	return ptrace(PTRACE_SETOPTIONS, tid, NULL, (void *)options);
}

/* Suspends every filter if this user may; otherwise a thread with a filter is left alone. */
static int begin(struct surgery *s, ps_set_options *set)
{
	const unsigned long options = PTRACE_O_TRACESYSGOOD | s->options;

	s->call->step = PS_STEP_SEIZE;
	s->filter_counts = false;
	if (set(s->tid, options | PTRACE_O_SUSPEND_SECCOMP) == 0)
		return 0;
	if (errno != EPERM && errno != EINVAL)
		return -errno;
	s->filter_counts = true;
	switch (ps_has_filter(s)) {
	case PS_YES:
		return refuse(s, PS_STEP_SECCOMP, -EPERM);
	case PS_NOT_KNOWN:
		return refuse(s, PS_STEP_FACTS, -EIO);
	case PS_NO:
		break;
	}
	return set(s->tid, options) < 0 ? -errno : 0;
}

/*
 * A stopped thread waits until we get a processor, so we take a real-time priority if we may.
 * Little work is left at that point, and the priority ends with the surgeon.
 */
static void hurry(void)
{
	const struct sched_param least = {.sched_priority = 1};

	if (sched_getscheduler(0) != SCHED_FIFO && sched_getscheduler(0) != SCHED_RR)
		sched_setscheduler(0, SCHED_RR, &least);
}

/*
 * Performs the two calls on a thread that this process traces and that is in an EVENT_STOP, from
 * whatever cause; the caller releases it. It has stood since that time.
 */
static int operate_on_stopped(struct surgery *s, uint64_t since)
{
	s->standing_since = since;
	ps_kill_me_after(s, STANDING_NS);
	PS_FAULT_STEP("stopped");
	if (is_as_remembered(s))
		return operate(s);
	s->call->step = PS_STEP_EXEC;
	return -ESTALE;
}

/*
 * Whether the process is the intended one, and the thread belongs to it: a number may have been
 * reused. Valid for good once the thread is traced, because its number is its own until we release
 * it.
 */
static bool is_the_one(const struct surgery *s)
{
	char stat[PS_STAT_SIZE];

	return ps_read_file(s, "stat", stat, sizeof(stat)) &&
	       (!s->call->start_time || ps_start_time(s) == s->call->start_time);
}

/*
 * Seizes and stops one thread and operates on it. -EAGAIN: it did not stop, and only our end
 * releases it. -ESRCH: it no longer exists.
 */
static int try_thread(struct surgery *s, uint64_t until)
{
	uint64_t begun;
	int error;

	s->call->tid = s->tid;
	s->call->attempts++;
	s->unsuitable = false;
	error = ps_open_table(s);
	if (error)
		return refuse(s, PS_STEP_TABLE, error);
	error = begin(s, seize);
	if (error)
		return error;
	PS_FAULT_STEP("seized");
	if (!is_the_one(s))
		return -EAGAIN;
	s->call->step = PS_STEP_STOP;
	hurry();
	begun = ps_now_ns();
	ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL);
	error = stop(s, 0, until);
	if (error)
		return error == -ESRCH ? -ESRCH : -EAGAIN;
	error = operate_on_stopped(s, begun);
	ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
	s->call->stopped_ns += ps_now_ns() - begun;
	s->standing_since = 0;
	PS_FAULT_STEP("detached");
	return error == -ESRCH ? -EAGAIN : error;
}

/* Tries one thread after another, the `turn`-th first; an only thread gets all the time. */
static int try_threads(struct surgery *s)
{
	pid_t tids[MAX_THREADS];
	int count = ps_list_threads(s, tids, MAX_THREADS), error = count < 0 ? count : -ESRCH;

	for (int i = 0; i < count && ps_now_ns() < s->deadline; i++) {
		s->tid = tids[(s->call->turn + i) % count];
		error = try_thread(s, count == 1 ? s->deadline : ps_now_ns() + THREAD_WAIT_NS);
		ps_close_table(s);
		/* A main thread that has exited causes EPERM; the other threads may still work. */
		if (!s->unsuitable && error != -ESRCH &&
		    !(error == -EPERM && s->call->step <= PS_STEP_SEIZE))
			break;
	}
	return error;
}

/* The same for the only thread of a process that has just begun a program. */
static int try_own(struct surgery *s)
{
	uint64_t begun = ps_now_ns();
	int error;

	s->call->tid = s->tid = s->call->pid;
	s->call->attempts++;
	error = ps_open_table(s);
	if (error)
		return refuse(s, PS_STEP_TABLE, error);
	error = begin(s, set_options);
	if (!error)
		error = operate_on_stopped(s, begun);
	s->call->stopped_ns = ps_now_ns() - begun;
	s->standing_since = 0;
	ps_close_table(s);
	return error;
}

/* Opens the target's files, before anything is stopped. */
static int open_target(struct surgery *s)
{
	char path[64];

	s->tid = ps_living_thread(s);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/mem", s->call->pid, s->tid);
	s->memory = open(path, O_RDWR | O_CLOEXEC);
	s->pidfd = s->memory < 0 ? -1 : (int)syscall(SYS_pidfd_open, s->call->pid, 0);
	if (s->memory < 0 || s->pidfd < 0)
		return -errno;
	return is_the_one(s) ? 0 : -ESRCH;
}

static int search(struct surgery *s)
{
	int error;

	s->call->step = PS_STEP_OPEN;
	error = open_target(s);
	if (error)
		return error;
	s->call->step = PS_STEP_GADGET;
	error = ps_find_gadgets(s);
	if (error)
		return error;
	s->call->step = PS_STEP_EXEC;
	return remember_address_space(s);
}

/*
 * Does the whole attach. The search gets half of the time, so that the stop always has the other
 * half.
 */
static int perform(struct surgery *s, int (*attempt)(struct surgery *s))
{
	uint64_t half = (uint64_t)s->call->timeout_ms * 1000000u / 2;
	int error;

	s->deadline = ps_now_ns() + half;
	ps_kill_me_after(s, half);
	error = search(s);
	if (!error) {
		s->deadline += half;
		ps_kill_me_after(s, s->deadline - ps_now_ns() + THREAD_WAIT_NS);
		s->call->step = PS_STEP_STOP;
		error = attempt(s);
	}
	ps_forget_gadgets(s);
	if (s->memory >= 0)
		close(s->memory);
	if (s->pidfd >= 0)
		close(s->pidfd);
	return error;
}

int ps_operate(struct surgery *s)
{
	prctl(PR_SET_TIMERSLACK, 1); /* for this thread: short sleeps must be short */
	return perform(s, try_threads);
}

int ps_operate_on_own(struct surgery *s)
{
	return perform(s, try_own);
}
#endif
