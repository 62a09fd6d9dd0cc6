/* SPDX-License-Identifier: MIT */
/* Starts a program and its tracer, which holds it before its first instruction. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tracer.h"

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
static bool place(const int stdio[3])
{
	int kept[3];

	for (int i = 0; i < 3; i++) {
		kept[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
		if (kept[i] < 0)
			return false;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(kept[i], i) < 0)
			return false;
	return true;
}

/* Waits until the tracer has it; false: there is no tracer. */
static bool wait_for_tracer(pid_t parent, int begin)
{
	char byte;

	/* For Yama, also after the exec: our parent and its descendants may trace us. */
	prctl(PR_SET_PTRACER, (unsigned long)parent, 0, 0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		return false;
	while (read(begin, &byte, 1) != 1)
		if (errno != EINTR)
			return false;
	return prctl(PR_SET_PDEATHSIG, 0) == 0; /* it would remain after the exec */
}

static _Noreturn void become(const char *path, char *const *argv, char *const *envp,
			     const int stdio[3], int report, int begin, pid_t parent)
{
	int error = 0;

	reset_signals();
	if (!place(stdio))
		error = errno;
	errno = 0;
	if (!error && !wait_for_tracer(parent, begin))
		_exit(127); /* the tracer has said why */
	if (!error) {
		execve(path, argv, envp);
		error = errno;
	}
	while (write(report, &error, sizeof(error)) < 0 && errno == EINTR)
		;
	_exit(127);
}

/* A descriptor above 2, so that 0, 1 and 2 can be placed. */
static int move_up(int fd)
{
	int higher;

	if (fd < 0 || fd > 2)
		return fd;
	higher = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	return higher;
}

struct ends {
	int report[2]; /* of the exec's error */
	int begin[2];  /* from the tracer to the program */
	int order[2];  /* from the caller to the tracer, and back */
};

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void shut_all(struct ends *ends)
{
	for (int i = 0; i < 2; i++) {
		shut(&ends->report[i]);
		shut(&ends->begin[i]);
		shut(&ends->order[i]);
	}
}

static int open_ends(struct ends *ends)
{
	int error = 0;

	*ends = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}};
	if (pipe2(ends->report, O_CLOEXEC) < 0 || pipe2(ends->begin, O_CLOEXEC) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends->order) < 0)
		error = -errno;
	for (int i = 0; !error && i < 2; i++) {
		ends->report[i] = move_up(ends->report[i]);
		ends->begin[i] = move_up(ends->begin[i]);
		ends->order[i] = move_up(ends->order[i]);
		if (ends->report[i] < 0 || ends->begin[i] < 0 || ends->order[i] < 0)
			error = -errno;
	}
	if (error)
		shut_all(ends);
	return error;
}

/* Waits until the program stands before its first instruction; -errno: why it does not. */
static int wait_for_program(const struct ends *ends)
{
	struct ps_message message;
	struct pollfd ready = {.fd = ends->order[0], .events = POLLIN};
	int error = 0, got, fd;

	while (read(ends->report[0], &error, sizeof(error)) < 0 && errno == EINTR)
		;
	if (error)
		return -error;
	do {
		poll(&ready, 1, -1);
		got = ps_receive_message(ends->order[0], &message, sizeof(message), &fd);
	} while (got == -EAGAIN);
	if (got == 1 && message.event == PS_EVENT_EXEC)
		return 0;
	return got == 1 && message.error ? message.error : -ECHILD;
}

static void end_child(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int ps_launch(const char *path, char *const *argv, char *const *envp, int in, int out, int err,
	      struct ps_tracee *ret)
{
	const int stdio[3] = {in, out, err};
	pid_t parent = getpid();
	struct ends ends;
	int error = open_ends(&ends);

	if (error)
		return error;
	ret->tracer = -1;
	ret->pid = fork();
	if (ret->pid == 0) {
		close(ends.begin[1]);
		become(path, argv, envp, stdio, ends.report[1], ends.begin[0], parent);
	}
	if (ret->pid > 0)
		ret->tracer = fork();
	if (ret->tracer == 0)
		ps_trace(ret->pid, ends.order[1], ends.begin[1]);
	if (ret->pid < 0 || ret->tracer < 0)
		error = -errno;
	shut(&ends.report[1]);
	shut(&ends.begin[0]);
	shut(&ends.begin[1]);
	shut(&ends.order[1]);
	if (!error)
		error = wait_for_program(&ends);
	if (error) {
		end_child(ret->tracer);
		end_child(ret->pid);
		shut_all(&ends);
		return error;
	}
	shut(&ends.report[0]);
	ret->socket = ends.order[0];
	return 0;
}

static int order(int socket, int what, const struct ps_attach *call)
{
	struct ps_request request = {.order = what};

	if (call)
		request.call = *call;
	return ps_send_message(socket, &request, sizeof(request), -1);
}

int ps_tracee_attach(int socket, const struct ps_attach *call)
{
	return order(socket, PS_ORDER_ATTACH, call);
}

int ps_tracee_stay(int socket)
{
	return order(socket, PS_ORDER_STAY, NULL);
}

int ps_tracee_go(int socket)
{
	return order(socket, PS_ORDER_GO, NULL);
}

int ps_tracee_event(int socket, int32_t ms, struct ps_attach *ret, int32_t *error)
{
	struct ps_message message;
	struct pollfd ready = {.fd = socket, .events = POLLIN};
	int got, fd;

	poll(&ready, 1, ms);
	got = ps_receive_message(socket, &message, sizeof(message), &fd);
	if (got == -EAGAIN)
		return PS_EVENT_NONE;
	if (got != 1)
		return PS_EVENT_LOST;
	*error = message.error;
	*ret = message.call;
	ret->uffd = fd;
	return message.event;
}
