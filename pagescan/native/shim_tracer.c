/* SPDX-License-Identifier: MIT */
/*
 * The tracer of a program that pagescan has started: a process that does nothing else, from before the
 * program's first instruction to its end. It passes on what would happen without it, and holds the
 * program at two moments until pagescan says that it may go on:
 *   - before the first instruction of a program, at the start and after each exec: pagescan attaches
 *     through this process, because a program has only one tracer;
 *   - when the last thread is about to end, and the memory still exists: for the last look.
 *
 * It may be killed at any instant, and then the program runs on: the kernel releases what a dead tracer
 * held. A stop is read without being consumed (WNOWAIT), so that the signal of that stop is delivered
 * in that case, too. Until pagescan lets the program begin, the kernel kills it with its tracer
 * (PTRACE_O_EXITKILL): a program that nobody tracks never begins.
 *
 * A stopped tracer would make the program wait at its next signal. So a kernel timer kills a tracer that
 * has not run for ALIVE_NS. pagescan gets a limited time, too: after it the program goes on without a
 * look.
 *
 * It is a child that pagescan has forked while other threads may have held locks: it calls no malloc
 * and no stdio on files.
 */
#define _GNU_SOURCE
#include "attach.h"
#include "entry.h"
#include "tracer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define OPTIONS                                                                                    \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT)
#define SECOND 1000000000u
#define ALIVE_NS                                                                                   \
	(5ull * SECOND) /* longer without a sign of life, and the kernel kills the tracer */
#define ANSWER_NS (10ull * SECOND) /* the time in which pagescan has to react to an event */
#define LOOK_NS (60ull * SECOND)   /* the time for its look */
#define LEAVE_NS (1ull * SECOND)   /* the time in which the other threads leave the memory */
#define ROOM (64u << 20)	   /* address space; a program has few mappings as it begins */
#define STAT_SIZE 1024

struct thread {
	pid_t tid;
	bool leaving; /* it has been in its exit stop */
};

struct tracer {
	pid_t pid; /* the program */
	int socket;
	int killer; /* the timer that kills this process */
	struct thread *threads;
	size_t count;
	size_t room;
	unsigned long options;
	bool has_begun; /* pagescan has let the program go on at least once */
	bool execed;	/* its next stop is before its first instruction */
	pid_t last;	/* the thread that is held in its exit stop, or 0 */
};

static volatile sig_atomic_t pulse;

static void beat(int signal)
{
	pulse = 1;
}

/* The end of the tracer releases every thread. */
static _Noreturn void leave(void)
{
	_exit(0);
}

static void set_timer(int timer, uint64_t ns, bool again)
{
	const struct timespec at = {(time_t)(ns / SECOND), (long)(ns % SECOND)};
	const struct itimerspec when = {.it_value = at,
					.it_interval = again ? at : (struct timespec){0}};

	syscall(SYS_timer_settime, timer, 0, &when, NULL);
}

static int make_timer(int signal)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
	int timer;

	return syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) < 0 ? -1 : timer;
}

static int close_others(int socket, int begin)
{
	int low = socket < begin ? socket : begin, high = socket < begin ? begin : socket;

	if (syscall(SYS_close_range, high + 1, ~0u, 0) < 0 ||
	    (low + 1 < high && syscall(SYS_close_range, low + 1, high - 1, 0) < 0) ||
	    (low && syscall(SYS_close_range, 0, low - 1, 0) < 0))
		return -errno;
	return 0;
}

/* Only the two descriptors stay; no signal but its own pulse reaches the tracer. */
static int prepare(struct tracer *t, int begin)
{
	struct sigaction usual = {.sa_handler = SIG_DFL}, beating = {.sa_handler = beat};
	sigset_t all;
	int timer, error = close_others(t->socket, begin);

	if (error)
		return error;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigaction(SIGCHLD, &usual, NULL);
	sigaction(SIGALRM, &beating, NULL); /* no SA_RESTART: it interrupts every wait */
	prctl(PR_SET_NAME, "pagescan-tracer");
	setsid(); /* Ctrl-Z is not for it */
	t->killer = make_timer(SIGKILL);
	timer = make_timer(SIGALRM);
	t->room = 512;
	t->threads = mmap(NULL, t->room * sizeof(*t->threads), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->killer < 0 || timer < 0 || t->threads == MAP_FAILED)
		return -EAGAIN;
	set_timer(t->killer, ALIVE_NS, false);
	set_timer(timer, SECOND, true);
	return 0;
}

static void let_pulse(bool open)
{
	sigset_t own;

	sigemptyset(&own);
	sigaddset(&own, SIGALRM);
	sigprocmask(open ? SIG_UNBLOCK : SIG_BLOCK, &own, NULL);
}

static void tell(const struct tracer *t, int event, int error, const struct ps_attach *call)
{
	struct ps_message message = {.event = event, .error = error};
	int fd = -1;

	if (call) {
		message.call = *call;
		fd = call->uffd;
	}
	if (ps_send_message(t->socket, &message, sizeof(message), fd) < 0)
		leave();
}

static struct thread *find(const struct tracer *t, pid_t tid)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->threads[i].tid == tid)
			return t->threads + i;
	return NULL;
}

static struct thread *add(struct tracer *t, pid_t tid)
{
	struct thread *thread = find(t, tid);
	size_t size = t->room * sizeof(*t->threads);

	if (thread)
		return thread;
	if (t->count == t->room) {
		t->threads = mremap(t->threads, size, 2 * size, MREMAP_MAYMOVE);
		if (t->threads == MAP_FAILED)
			leave();
		t->room *= 2;
	}
	t->threads[t->count] = (struct thread){.tid = tid};
	return t->threads + t->count++;
}

static void forget(struct tracer *t, pid_t tid)
{
	struct thread *thread = find(t, tid);

	if (thread)
		*thread = t->threads[--t->count];
}

static bool has_living(const struct tracer *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (!t->threads[i].leaving)
			return true;
	return false;
}

/* Whether a new tracee is a thread of the program: clone(2) also makes processes of this kind. */
static bool is_thread(const struct tracer *t, pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d", t->pid, tid);
	return access(path, F_OK) == 0;
}

/* The stop of a thread in the form of waitpid(2), which stays unconsumed; 0: it is in none. */
static int stop_of(pid_t tid)
{
	siginfo_t info = {.si_pid = 0};

	if (waitid(P_PID, (id_t)tid, &info, WSTOPPED | WNOWAIT | WNOHANG | __WALL) < 0 ||
	    info.si_pid != tid)
		return 0;
	return info.si_status << 8 | 0x7f;
}

static void consume(pid_t tid)
{
	waitid(P_PID, (id_t)tid, NULL, WSTOPPED | WNOHANG | __WALL);
}

static bool is_stop_signal(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* Ends a PTRACE_EVENT_STOP: a thread of a stopped process stays stopped. */
static void end_event_stop(pid_t tid, int status)
{
	ptrace(is_stop_signal(WSTOPSIG(status)) ? PTRACE_LISTEN : PTRACE_CONT, tid, NULL, NULL);
}

#if defined(__x86_64__)
static int attach(struct tracer *t, struct ps_attach *call)
{
	struct surgery s;
	void *room = mmap(NULL, ROOM, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int error = -ENOMEM;

	if (room != MAP_FAILED) {
		ps_begin_surgery(&s, call, room, ROOM);
		s.timer = t->killer;
		s.options = t->options & PTRACE_O_EXITKILL;
		error = ps_operate_on_own(&s);
		munmap(room, ROOM);
	}
	set_timer(t->killer, ALIVE_NS, false);
	ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)t->options);
	return error;
}
#else
static int attach(struct tracer *t, struct ps_attach *call)
{
	call->uffd = call->left_fd = -1;
	call->step = PS_STEP_ARCH;
	return -ENOSYS;
}
#endif

static void answer(struct tracer *t, struct ps_attach *call, bool stands)
{
	int error = -EAGAIN;

	call->uffd = -1;
	if (stands)
		error = attach(t, call);
	tell(t, PS_EVENT_ATTACHED, error, call);
	if (call->uffd >= 0)
		close(call->uffd);
	if (stands && !stop_of(t->pid))
		leave(); /* it did not return from the call, or was killed */
}

/* Waits for an order of pagescan; false: the time is up. pagescan's end is the tracer's. */
static bool get_order(struct tracer *t, uint64_t until, struct ps_request *ret)
{
	struct pollfd ready = {.fd = t->socket, .events = POLLIN};
	int got, fd;

	for (;;) {
		got = ps_receive_message(t->socket, ret, sizeof(*ret), &fd);
		if (got > 0)
			return true;
		if (got != -EAGAIN)
			leave();
		if (ps_now_ns() >= until)
			return false;
		poll(&ready, 1, 1000);
		set_timer(t->killer, ALIVE_NS, false);
	}
}

/* Holds the program until pagescan says that it may go on, or does not react. */
static void hold(struct tracer *t, int event)
{
	struct ps_request request;
	uint64_t until = ps_now_ns() + ANSWER_NS;

	let_pulse(false); /* the surgery's calls must not be interrupted */
	tell(t, event, 0, NULL);
	if (!t->has_begun)
		until = UINT64_MAX;
	while (get_order(t, until, &request)) {
		if (request.order == PS_ORDER_GO)
			break;
		if (request.order == PS_ORDER_ATTACH)
			answer(t, &request.call, event == PS_EVENT_EXEC);
		if (t->has_begun)
			until = ps_now_ns() + LOOK_NS;
	}
	let_pulse(true);
}

/* Before the first instruction of a program. */
static void hold_at_exec(struct tracer *t)
{
	int status;

	t->execed = false;
	hold(t, PS_EVENT_EXEC);
	if (!t->has_begun) {
		t->has_begun = true;
		t->options = OPTIONS;
		ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)t->options);
	}
	status = stop_of(t->pid);
	if (status >> 16 == PTRACE_EVENT_STOP) /* else it was killed */
		end_event_stop(t->pid, status);
}

static char state_of(pid_t pid, const char *tid)
{
	char path[64], text[STAT_SIZE], *at;
	ssize_t length = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/stat", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	text[length > 0 ? length : 0] = 0;
	at = strrchr(text, ')');
	return at && at[1] ? at[2] : 'X';
}

/*
 * Whether no thread but the last one uses the memory any more. A thread that was made so that no tracer
 * sees it (CLONE_UNTRACED) is traced from here on.
 */
static bool are_others_gone(struct tracer *t)
{
	char path[32], room[4096] __attribute__((aligned(8)));
	bool gone = true;
	long size;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task", t->pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (fd >= 0 && (size = syscall(SYS_getdents64, fd, room, sizeof(room))) > 0) {
		for (long at = 0; at < size; at += ((struct entry *)(room + at))->length) {
			const char *name = ((struct entry *)(room + at))->name;
			pid_t tid = atoi(name);
			char state;

			if (tid <= 0 || tid == t->last)
				continue;
			state = state_of(t->pid, name);
			if (state == 'Z' || state == 'X')
				continue;
			gone = false;
			if (!find(t, tid) &&
			    ptrace(PTRACE_SEIZE, tid, NULL, (void *)t->options) == 0)
				add(t, tid);
		}
	}
	if (fd >= 0)
		close(fd);
	return gone;
}

static void handle(struct tracer *t, const siginfo_t *info);

/*
 * Holds the last thread in its exit stop, when the others have left the memory: until then they may
 * still clear a thread's number there.
 */
static void hold_at_exit(struct tracer *t)
{
	const struct timespec nap = {0, 100000};
	uint64_t until = ps_now_ns() + LEAVE_NS;

	consume(t->last);
	for (;;) {
		siginfo_t info = {.si_pid = 0};

		if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOWAIT | WNOHANG | __WALL) == 0 &&
		    info.si_pid)
			handle(t, &info);
		else if (has_living(t))
			break; /* it is not the last one */
		else if (are_others_gone(t) || ps_now_ns() > until) {
			hold(t, PS_EVENT_EXIT);
			break;
		} else
			nanosleep(&nap, NULL);
	}
	ptrace(PTRACE_CONT, t->last, NULL, NULL);
	t->last = 0;
}

static void on_exit_stop(struct tracer *t, pid_t tid)
{
	if (is_thread(t, tid))
		add(t, tid)->leaving = true;
	if (!t->last && t->has_begun && !has_living(t)) {
		t->last = tid;
		hold_at_exit(t);
	} else
		ptrace(PTRACE_CONT, tid, NULL, NULL);
}

/*
 * All other threads are gone; the thread that called execve has the number of the process now. The
 * kernel lets a thread that changed its number go on only after a wait that consumed this stop.
 */
static void on_exec(struct tracer *t)
{
	consume(t->pid);
	t->count = 0;
	add(t, t->pid);
	t->execed = true;
	ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL);
	ptrace(PTRACE_CONT, t->pid, NULL, NULL);
}

static void on_clone(struct tracer *t, pid_t tid)
{
	unsigned long made;

	if (ptrace(PTRACE_GETEVENTMSG, tid, NULL, &made) == 0 && is_thread(t, (pid_t)made))
		add(t, (pid_t)made);
	ptrace(PTRACE_CONT, tid, NULL, NULL);
}

static void on_event_stop(struct tracer *t, pid_t tid, int status)
{
	if (!find(t, tid)) {
		if (!is_thread(t, tid)) {
			ptrace(PTRACE_DETACH, tid, NULL, NULL);
			return;
		}
		add(t, tid);
	}
	if (t->execed && tid == t->pid)
		hold_at_exec(t);
	else
		end_event_stop(tid, status);
}

static void handle(struct tracer *t, const siginfo_t *info)
{
	int status = info->si_status << 8 | 0x7f;
	long signal = WSTOPSIG(status);
	pid_t tid = info->si_pid;

	if (info->si_code != CLD_TRAPPED) {
		waitid(P_PID, (id_t)tid, NULL, WEXITED | WNOHANG | __WALL);
		forget(t, tid);
		return;
	}
	switch (status >> 16) {
	case PTRACE_EVENT_STOP:
		on_event_stop(t, tid, status);
		break;
	case PTRACE_EVENT_CLONE:
		on_clone(t, tid);
		break;
	case PTRACE_EVENT_EXEC:
		on_exec(t);
		break;
	case PTRACE_EVENT_EXIT:
		on_exit_stop(t, tid);
		break;
	default:
		if (signal == (SIGTRAP | 0x80)) /* the call of a surgery that failed */
			signal = 0;
		ptrace(PTRACE_CONT, tid, NULL, (void *)signal);
	}
}

/* Once per second: shows that it lives, and asks whether pagescan does. */
static void on_pulse(struct tracer *t)
{
	struct ps_request request;

	pulse = 0;
	set_timer(t->killer, ALIVE_NS, false);
	while (get_order(t, 0, &request))
		if (request.order == PS_ORDER_ATTACH)
			answer(t, &request.call, false); /* too late */
}

_Noreturn void ps_trace(pid_t pid, int socket, int begin)
{
	struct tracer t = {
		.pid = pid,
		.socket = socket,
		.options = OPTIONS | PTRACE_O_EXITKILL,
	};
	int error = prepare(&t, begin);

	if (!error && ptrace(PTRACE_SEIZE, pid, NULL, (void *)t.options) < 0)
		error = -errno;
	if (error || write(begin, "!", 1) != 1) {
		tell(&t, PS_EVENT_LOST, error, NULL);
		leave();
	}
	close(begin);
	add(&t, pid);
	let_pulse(true);
	for (;;) {
		siginfo_t info;

		error = waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOWAIT | __WALL);
		if (!error)
			handle(&t, &info);
		else if (errno != EINTR)
			leave();
		if (pulse)
			on_pulse(&t);
	}
}
