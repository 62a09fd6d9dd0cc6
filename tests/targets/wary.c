/* SPDX-License-Identifier: MIT */
/*
 * Targets that watch their system calls and descriptors: wary KIND [WORD]
 *
 * Prints its pid when it is ready, waits for the end of its stdin, and exits with 0 if no call was
 * caught and no descriptor closed or changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static volatile char selector; /* 0: allow, 1: block */
static volatile int caught;

static void ready(void)
{
	printf("%d\n", getpid());
	fflush(stdout);
}

static bool goes_on(void)
{
	struct pollfd input = {0, POLLIN, 0};

	return poll(&input, 1, 0) == 0;
}

static int wait_for_end(void)
{
	char byte;

	while (read(0, &byte, 1) < 0 && errno == EINTR)
		;
	return caught;
}

/* ---- Syscall User Dispatch ------------------------------------------------------------------ */

/* System calls from here are exempt: one instruction, and the return from a signal. */
extern char range_start[], range_end[];
__asm__(".text\nrange_start: nop\n syscall\n ret\n mov $15, %eax\n syscall\nrange_end: nop\n");

static void on_sigsys(int signal)
{
	selector = 0; /* otherwise the return from here would be caught, too */
	caught++;
	(void)signal;
}

static void find_libc(unsigned long *start, unsigned long *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];

	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "libc.so") && strstr(line, "r-xp"))
			sscanf(line, "%lx-%lx", start, end);
	fclose(maps);
}

static int dispatch(const char *where)
{
	unsigned long start = 0, end = 0;
	bool blocks = strcmp(where, "allow") != 0;

	signal(SIGSYS, on_sigsys);
	if (!strcmp(where, "libc")) {
		find_libc(&start, &end);
	} else if (!strcmp(where, "inside")) {
		start = (unsigned long)range_start;
		end = (unsigned long)range_end;
	}
	ready();
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, start, end - start, &selector))
		return 77;
	while (goes_on()) {
		struct timespec begun, now;

		clock_gettime(CLOCK_MONOTONIC, &begun); /* in the vDSO: no system call */
		selector = blocks;
		do
			clock_gettime(CLOCK_MONOTONIC, &now);
		while ((now.tv_sec - begun.tv_sec) * 1000000000 + now.tv_nsec - begun.tv_nsec <
		       20000000);
		selector = 0;
	}
	return caught;
}

static void *dispatch_in_thread(void *unused)
{
	exit(dispatch("nowhere"));
	return unused;
}

/* ---- seccomp -------------------------------------------------------------------------------- */

static long filter(void)
{
	return filter_userfaultfd(SECCOMP_RET_KILL_PROCESS, 0);
}

/* Its status is longer than 8 KiB, and the lines about the filter are at its end. */
static int in_many_groups(uid_t user)
{
	gid_t groups[1000];

	for (unsigned i = 0; i < 1000; i++)
		groups[i] = 1874600000u + i;
	if (setgroups(1000, groups) || (user && (setgid(user) || setuid(user))))
		return 77;
	prctl(PR_SET_DUMPABLE, 1);
	if (filter())
		return 77;
	ready();
	return wait_for_end();
}

/* ---- kernel threads, and threads with their own descriptors -------------------------------- */

/* A kernel thread of the process waits for a pipe that stays empty. */
static void make_worker(void)
{
	static struct io_uring_params params;
	static char byte;
	struct io_uring_sqe *entries;
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params), ends[2];
	uint8_t *queue;

	if (ring < 0 || pipe(ends))
		exit(77);
	queue = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	entries[0].opcode = IORING_OP_READ;
	entries[0].flags = IOSQE_ASYNC;
	entries[0].fd = ends[0];
	entries[0].addr = (uintptr_t)&byte;
	entries[0].len = 1;
	*(uint32_t *)(void *)(queue + params.sq_off.tail) = 1;
	if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
		exit(77);
}

static void *with_own_descriptors(void *unused)
{
	unshare(CLONE_FILES);
	for (int fd = 3; fd < 64; fd++)
		close(fd); /* the next one is 3 */
	for (;;)
		pause();
	return unused;
}

/* ---- a file that replaces the new descriptor ----------------------------------------- */

static int evil = -1;
static volatile int next_fd, done;

static void *swap(void *unused)
{
	for (;;)
		if (fcntl(next_fd, F_GETFD) >= 0) {
			done = dup2(evil, next_fd) == next_fd;
			return unused;
		}
}

static int userfaultfd_of_a_child(void)
{
	int pair[2], fd = -1;
	char control[64] = {0}, byte = 0;
	struct iovec io = {&byte, 1};
	struct msghdr message = {.msg_iov = &io,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *header;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -1;
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
		message.msg_controllen = CMSG_SPACE(sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
		sendmsg(pair[1], &message, 0);
		close(fd);
		pause();
	}
	recvmsg(pair[0], &message, 0);
	header = CMSG_FIRSTHDR(&message);
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

/* close(2) of its last descriptor waits for an hour. */
static int lingering_socket(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(at);
	struct linger hour = {1, 3600};
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	static char data[1 << 20];

	bind(listener, (void *)&at, sizeof(at));
	listen(listener, 1);
	getsockname(listener, (void *)&at, &length);
	if (connect(fd, (void *)&at, sizeof(at)) || accept(listener, NULL, NULL) < 0)
		return -1;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (send(fd, data, sizeof(data), 0) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hour, sizeof(hour));
	return fd;
}

/* The replacing file must still be there at the end: no one else may touch it. */
static int swapped(const char *what)
{
	char *memory =
		mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ends[2], result;
	pthread_t thread;

	memset(memory, 1, 8 << 20);
	if (!strcmp(what, "userfaultfd"))
		evil = userfaultfd_of_a_child();
	else if (!strcmp(what, "socket"))
		evil = lingering_socket();
	else if (pipe(ends) == 0)
		evil = ends[0];
	if (evil < 0)
		return 77;
	next_fd = dup(0);
	close(next_fd);
	pthread_create(&thread, NULL, swap, NULL);
	ready();
	result = wait_for_end();
	return result || (done && fcntl(next_fd, F_GETFD) < 0);
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "", *word = argc > 2 ? argv[2] : "";
	pthread_t thread;

	if (!strcmp(kind, "dispatch"))
		return dispatch(word);
	if (!strcmp(kind, "dispatch-thread")) {
		pthread_create(&thread, NULL, dispatch_in_thread, NULL);
		for (;;)
			pause();
	}
	if (!strcmp(kind, "groups"))
		return in_many_groups((uid_t)atoi(word));
	if (!strcmp(kind, "worker")) {
		make_worker();
		if (filter())
			return 77;
		ready();
		return wait_for_end();
	}
	if (!strcmp(kind, "table")) {
		for (int i = 0; i < 8; i++)
			open("/dev/zero", O_RDWR);
		pthread_create(&thread, NULL, with_own_descriptors, NULL);
		usleep(100000);
		if (filter())
			return 77;
		ready();
		return wait_for_end();
	}
	if (!strcmp(kind, "swapped"))
		return swapped(word);
	return 2;
}
