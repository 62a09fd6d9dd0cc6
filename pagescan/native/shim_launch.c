/* SPDX-License-Identifier: MIT */
/* Starts a program and leaves it stopped before its first instruction. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim.h"

/* Starts it like a shell: without our ignored signals and mask. */
static void reset_signals(void)
{
	struct sigaction usual = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		sigaction(number, &usual, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Moves the three descriptors to 0, 1 and 2, even if some have these numbers already. */
static bool place(int in, int out, int err)
{
	int kept[3] = {in, out, err};

	for (int i = 0; i < 3; i++) {
		kept[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, 3);
		if (kept[i] < 0)
			return false;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(kept[i], i) < 0)
			return false;
	return true;
}

/* Lets only our parent trace us: init would trace, and stop, an orphan. */
static bool be_traced(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent ||
	    ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		return false;
	return prctl(PR_SET_PDEATHSIG, 0) == 0; /* it would remain after the exec */
}

static _Noreturn void become(const char *path, char *const *argv, char *const *envp, int in,
			     int out, int err, int report, pid_t parent)
{
	int error = 0;

	reset_signals();
	if (!place(in, out, err) || !be_traced(parent))
		error = errno ? errno : ESRCH;
	/* For Yama, also after the exec: our parent and its descendants may trace us. */
	prctl(PR_SET_PTRACER, (unsigned long)parent, 0, 0, 0);
	if (!error) {
		execve(path, argv, envp);
		error = errno;
	}
	while (write(report, &error, sizeof(error)) < 0 && errno == EINTR)
		;
	_exit(127);
}

/* Only calls that a signal handler may make: other threads may have held any lock at the fork. */
static _Noreturn void watch_over(pid_t child, int alive)
{
	sigset_t all;
	char byte;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (read(alive, &byte, 1) == 0)
		kill(child, SIGKILL);
	_exit(0);
}

static int start_guard(pid_t child, struct ps_guard *guard)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	guard->pid = fork();
	if (guard->pid == 0) {
		close(ends[1]);
		watch_over(child, ends[0]);
	}
	close(ends[0]);
	guard->fd = ends[1];
	if (guard->pid > 0)
		return 0;
	close(ends[1]);
	guard->fd = -1;
	return -EAGAIN;
}

int ps_launch(const char *path, char *const *argv, char *const *envp, int in, int out, int err,
	      struct ps_guard *guard)
{
	int report[2], error = 0, status;
	pid_t child, parent = getpid();

	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	if (report[1] < 3) { /* one of 0, 1, 2 was closed: avoid these numbers */
		int higher = fcntl(report[1], F_DUPFD_CLOEXEC, 3);

		close(report[1]);
		report[1] = higher;
	}
	child = fork();
	if (child == 0)
		become(path, argv, envp, in, out, err, report[1], parent);
	if (child < 0)
		error = errno;
	close(report[1]);
	if (!error && read(report[0], &error, sizeof(error)) <= 0)
		error = 0; /* closed by the exec */
	close(report[0]);
	if (child < 0)
		return -error;
	guard->fd = guard->pid = -1;
	if (!error && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
	    start_guard(child, guard) == 0) {
		/*
		 * It is in the exec's SIGTRAP: the pending SIGSTOP stops it before its first
		 * instruction.
		 */
		kill(child, SIGSTOP);
		if (ptrace(PTRACE_DETACH, child, NULL, NULL) == 0 &&
		    waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status))
			return child;
		error = ECHILD;
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (guard->fd >= 0) {
		close(guard->fd);
		waitpid(guard->pid, &status, 0);
	}
	return error ? -error : -ECHILD;
}
