/* SPDX-License-Identifier: MIT */
/*
 * Targets that are hard to attach to: peculiar KIND
 *
 * Prints its pid when it is ready, waits for the end of its stdin, and exits with 0 if it was not
 * harmed. The seccomp kinds have a filter under which userfaultfd(2) is fatal, or does worse.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"

static int trapped;

static void on_trap(int signal)
{
	trapped = 1;
	(void)signal;
}

static int say_and_wait(void)
{
	char byte;

	printf("%d\n", getpid());
	fflush(stdout);
	while (read(0, &byte, 1) < 0 && errno == EINTR)
		;
	return trapped;
}

static int filter(uint32_t action)
{
	unsigned flags = action == SECCOMP_RET_USER_NOTIF ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;

	signal(SIGSYS, on_trap);
	return filter_userfaultfd(action, flags) < 0;
}

static int strict(void)
{
	char byte;

	printf("%d\n", getpid());
	fflush(stdout);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
	write(1, "\n", 1);
	read(0, &byte, 1);
	syscall(SYS_exit, 0);
	return 1;
}

static void *outlive(void *unused)
{
	exit(say_and_wait());
	return unused;
}

/* Writes to a page until the end of its stdin; the main thread ends after the first line. */
static void *write_and_outlive(void *page)
{
	struct pollfd input = {0, POLLIN, 0};
	char byte;

	while (true) {
		(*(volatile char *)page)++;
		if (poll(&input, 1, 5) && read(0, &byte, 1) <= 0)
			exit(0);
	}
	return page;
}

static int main_exits_later(void)
{
	char *page = aligned_alloc(4096, 4096), byte;
	pthread_t thread;

	printf("%d\n", getpid());
	fflush(stdout);
	while (read(0, &byte, 1) < 0)
		;
	pthread_create(&thread, NULL, write_and_outlive, page);
	pthread_exit(NULL);
}

static void *rest(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/* A thread that calls vfork(2) stands still, uninterruptible, until the child is done. */
static void *wait_for_vfork(void *unused)
{
	if (!vfork()) {
		char byte;

		while (read(0, &byte, 1) < 0)
			;
		_exit(0);
	}
	return unused;
}

/* Overwrites the 16 random bytes that exec gave it, as Go does when it starts. */
static int rewrite_random_bytes(void)
{
	volatile unsigned char *bytes = (void *)getauxval(AT_RANDOM);
	struct pollfd input = {0, POLLIN, 0};
	struct timespec soon = {0, 20000};

	printf("%d\n", getpid());
	fflush(stdout);
	while (!ppoll(&input, 1, &soon, NULL))
		for (int i = 0; i < 16; i++)
			bytes[i]++;
	return 0;
}

/* Every few ms it calls execve(2) on a program of the same name, until its stdin ends. */
static int exec_again(char **argv, bool begun)
{
	struct pollfd input = {0, POLLIN, 0};
	struct timespec now;

	if (!begun) {
		printf("%d\n", getpid());
		fflush(stdout);
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (poll(&input, 1, 2 + (int)(now.tv_nsec % 8)))
		return 0;
	execl("/proc/self/exe", argv[0], argv[1], "again", NULL);
	return 1;
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
	pthread_t thread;

	if (!strcmp(kind, "exec"))
		return exec_again(argv, argc > 2);
	if (!strcmp(kind, "random-bytes"))
		return rewrite_random_bytes();
	if (!strcmp(kind, "seccomp-kill"))
		return filter(SECCOMP_RET_KILL_PROCESS) || say_and_wait();
	if (!strcmp(kind, "seccomp-trap"))
		return filter(SECCOMP_RET_TRAP) || say_and_wait();
	if (!strcmp(kind, "seccomp-errno"))
		return filter(SECCOMP_RET_ERRNO | EPERM) || say_and_wait();
	if (!strcmp(kind, "seccomp-notify"))
		return filter(SECCOMP_RET_USER_NOTIF) || say_and_wait();
	if (!strcmp(kind, "seccomp-strict"))
		return strict();
	if (!strcmp(kind, "seccomp-thread")) { /* only the main thread has a filter */
		pthread_create(&thread, NULL, outlive, NULL);
		filter(SECCOMP_RET_KILL_PROCESS);
		return pthread_join(thread, NULL);
	}
	if (!strcmp(kind, "main-exited")) {
		pthread_create(&thread, NULL, outlive, NULL);
		pthread_exit(NULL);
	}
	if (!strcmp(kind, "main-exits-later"))
		return main_exits_later();
	if (!strcmp(kind, "vfork")) {
		printf("%d\n", getpid());
		fflush(stdout);
		wait_for_vfork(NULL);
		return 0;
	}
	if (!strcmp(kind, "vfork-main")) {
		pthread_create(&thread, NULL, outlive, NULL);
		wait_for_vfork(NULL);
		return pthread_join(thread, NULL);
	}
	if (!strcmp(kind, "thread")) { /* a second thread, which does nothing */
		pthread_create(&thread, NULL, rest, NULL);
		return say_and_wait();
	}
	if (!strcmp(kind, "vfork-thread")) {
		pthread_create(&thread, NULL, wait_for_vfork, NULL);
		return say_and_wait();
	}
	return say_and_wait();
}
