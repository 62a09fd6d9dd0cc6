/* SPDX-License-Identifier: MIT */
/*
 * Keeps the last output of a program while the live view is shown, and passes it on afterwards.
 *
 * A process of its own does that, because the program may outlive pagescan: without a reader of its
 * pipe, its next write would kill it. The process ends with the last writer. If pagescan ends first, the
 * output is printed at once and passed on from then on.
 */
#define _GNU_SOURCE
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEPT (1u << 20)

struct keeper {
	int in;
	int out; /* -1: nobody reads there any more */
	int control;
	char *ring;	/* KEPT bytes */
	uint64_t total; /* bytes read so far */
	bool has_ended;
};

struct ps_kept { /* what is there to be printed */
	uint64_t kept;
	uint64_t dropped;
};

static void print(struct keeper *k, const char *text, size_t size)
{
	while (size && k->out >= 0) {
		ssize_t written = write(k->out, text, size);

		if (written < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = k->out, .events = POLLOUT}, 1, -1);
			continue;
		}
		if (written < 0 && errno != EINTR) {
			k->out = -1;
			break;
		}
		if (written > 0) {
			text += written;
			size -= (size_t)written;
		}
	}
}

/* Reads into the ring; false: nothing is there now. */
static bool take(struct keeper *k)
{
	size_t at = k->total % KEPT;
	ssize_t length = read(k->in, k->ring + at, KEPT - at);

	if (length < 0)
		return errno == EINTR;
	k->has_ended = length == 0;
	k->total += (uint64_t)length;
	return length > 0;
}

static struct ps_kept kept(const struct keeper *k)
{
	uint64_t most = k->total < KEPT ? k->total : KEPT;

	return (struct ps_kept){most, k->total - most};
}

/* Prints what is kept, from the first whole line on. */
static void print_kept(struct keeper *k)
{
	size_t at = k->total % KEPT;
	const char *line;

	if (k->total <= KEPT) {
		print(k, k->ring, (size_t)k->total);
	} else if ((line = memchr(k->ring + at, '\n', KEPT - at))) {
		print(k, line + 1, (size_t)(k->ring + KEPT - line - 1));
		print(k, k->ring, at);
	} else {
		line = memchr(k->ring, '\n', at);
		line = line ? line + 1 : k->ring;
		print(k, line, (size_t)(k->ring + at - line));
	}
}

/* Keeps the output until pagescan asks for it, or ends. */
static void keep(struct keeper *k)
{
	struct pollfd ready[2] = {{.fd = k->in, .events = POLLIN},
				  {.fd = k->control, .events = POLLIN}};

	for (;;) {
		poll(ready, 2, -1);
		if (ready[1].revents)
			break;
		if (ready[0].revents)
			take(k);
		if (k->has_ended)
			ready[0].fd = -1;
	}
	/* CMD may write all the time: one ring more is enough */
	for (uint64_t most = k->total + KEPT; k->total < most && take(k);)
		;
}

static void pass_on(struct keeper *k)
{
	struct pollfd ready = {.fd = k->in, .events = POLLIN};

	while (!k->has_ended) {
		size_t at = k->total % KEPT;
		uint64_t before = k->total;

		poll(&ready, 1, -1);
		take(k);
		print(k, k->ring + at, (size_t)(k->total - before));
	}
}

static _Noreturn void serve(struct keeper *k)
{
	struct ps_kept there;
	struct pollfd ready = {.fd = k->control, .events = POLLIN};
	sigset_t all;
	char byte;
	int fd;

	sigfillset(&all); /* Ctrl-C and Ctrl-Z are for the program */
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "pagescan-output");
	keep(k);
	if (ps_receive_message(k->control, &byte, 1, &fd) == 1) {
		there = kept(k);
		ps_send_message(k->control, &there, sizeof(there), -1);
		poll(&ready, 1, -1); /* pagescan may say something first, or end */
	}
	print_kept(k);
	ps_send_message(k->control, &(struct ps_kept){0, 0}, sizeof(there), -1);
	close(k->control);
	pass_on(k);
	_exit(0);
}

static void close_others(const struct keeper *k)
{
	int fds[] = {k->in, k->out, k->control};
	int from = 0;

	for (;;) { /* the gaps between the three, ascending */
		int next = -1;

		for (int i = 0; i < 3; i++)
			if (fds[i] >= from && (next < 0 || fds[i] < next))
				next = fds[i];
		if (next < 0) {
			syscall(SYS_close_range, from, ~0u, 0);
			return;
		}
		if (next > from)
			syscall(SYS_close_range, from, next - 1, 0);
		from = next + 1;
	}
}

int ps_keep_output(int out, struct ps_output *ret)
{
	int ends[2] = {-1, -1}, control[2] = {-1, -1}, error = 0;
	struct keeper k = {.out = out};

	k.ring = mmap(NULL, KEPT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (k.ring == MAP_FAILED)
		return -errno;
	if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		error = -errno;
	ret->pid = error ? -1 : fork();
	if (ret->pid == 0) {
		k.in = ends[0];
		k.control = control[1];
		close_others(&k);
		serve(&k);
	}
	if (!error && ret->pid < 0)
		error = -errno;
	munmap(k.ring, KEPT);
	for (int i = 0; i < 2; i++) {
		if (i == 0 || error)
			close(ends[i]);
		if (i == 1 || error)
			close(control[i]);
	}
	ret->input = ends[1];
	ret->control = control[0];
	return error;
}

/* Waits for the answer; 0: the process is gone. */
static int get(int control, struct ps_kept *ret)
{
	struct pollfd ready = {.fd = control, .events = POLLIN};
	int got, fd;

	do {
		poll(&ready, 1, -1);
		got = ps_receive_message(control, ret, sizeof(*ret), &fd);
	} while (got == -EAGAIN);
	return got;
}

int ps_output_size(int control, uint64_t *kept_bytes, uint64_t *dropped)
{
	struct ps_kept answer = {0, 0};
	int error = ps_send_message(control, "", 1, -1);

	if (!error && get(control, &answer) != 1)
		error = -EPIPE;
	*kept_bytes = answer.kept;
	*dropped = answer.dropped;
	return error;
}

int ps_output_print(int control)
{
	struct ps_kept answer;
	int error = ps_send_message(control, "", 1, -1);

	return error ? error : get(control, &answer) == 1 ? 0 : -EPIPE;
}
