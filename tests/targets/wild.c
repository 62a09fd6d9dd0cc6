/* SPDX-License-Identifier: MIT */
/*
 * Targets as an attach meets them in the wild, which check themselves: wild KIND STATUS
 *
 * dispatch: Syscall User Dispatch, as Wine has it: while it computes, each call from outside libc would
 *	be a SIGSYS. dispatch-nap: the same, asleep in libc in that time.
 * execs: a main thread with a seccomp filter, which would be killed for userfaultfd(2); another thread
 *	without one calls execve(2) each few milliseconds, and others wait. Each round is a new program.
 * reaps: a host that waits for any child, and has children that end all the time.
 *
 * STATUS is a file with the counters: status.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"
#include "status.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define STEPS 200000u

static volatile struct status *status;
static volatile char selector; /* 0: allow, 1: block */
static char **words;

static void fault(uint64_t code)
{
	status->faults++;
	status->last_fault = code;
}

static void nap(long us)
{
	struct timespec left = {0, us * 1000};

	while (syscall(SYS_nanosleep, &left, &left) && errno == EINTR)
		;
}

/* ---- Syscall User Dispatch -------------------------------------------------------------------- */

static void on_sigsys(int signal)
{
	(void)signal;
	selector = 0; /* otherwise the return from here would be caught, too */
	fault(1);
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

/* A sum carried in registers, x = a x + c, many times, and a real number beside it. */
static uint64_t compute(uint64_t x, double *real)
{
	for (unsigned i = 0; i < STEPS; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		*real = *real * 0.5 + 1.0;
	}
	return x;
}

static void dispatch(int naps)
{
	unsigned long start = 0, end = 0;
	double first = 0, again;
	uint64_t expected = compute(7, &first);
	pid_t pid = getpid();

	signal(SIGSYS, on_sigsys);
	find_libc(&start, &end);
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, start, end - start, &selector))
		exit(77);
	for (;; status->rounds++) {
		selector = 1;
		again = 0;
		if (naps)
			nap(2000);
		else if (compute(7, &again) != expected || again != first)
			fault(2);
		selector = 0;
		if (getpid() != pid)
			fault(3);
	}
}

/* ---- execve(2) all the time ------------------------------------------------------------------- */

static void *exec_soon(void *unused)
{
	nap(1000 + random() % 20000);
	execv(words[0], words);
	fault(10);
	return unused;
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void refuse_userfaultfd(void)
{
	if (filter_userfaultfd(SECCOMP_RET_KILL_PROCESS, 0))
		exit(77);
}

static void execs(void)
{
	pthread_t thread;
	sigset_t mask;

	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int signal = 1; signal < 32; signal++)
		if (sigismember(&mask, signal))
			fault(11);
	if (syscall(SYS_close_range, 3, ~0u, 0)) /* the remaining ones were close-on-exec */
		fault(12);
	srandom((unsigned)(getpid() + status->rounds));
	for (int i = 0; i < 3; i++)
		pthread_create(&thread, NULL, wait_for_ever, NULL);
	pthread_create(&thread, NULL, exec_soon, NULL);
	refuse_userfaultfd();
	status->rounds++;
	wait_for_ever(NULL);
}

/* ---- waitpid(-1) ------------------------------------------------------------------------------ */

static void reaps(void)
{
	for (;; status->rounds++) {
		pid_t child = fork();
		int how;

		if (!child) {
			nap(500);
			_exit(7);
		}
		while (waitpid(-1, &how, 0) != child)
			if (errno != EINTR)
				fault(20);
		if (!WIFEXITED(how) || WEXITSTATUS(how) != 7)
			fault(21);
	}
}

int main(int argc, char **argv)
{
	int file;

	if (argc != 3)
		return 2;
	words = argv;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (status == MAP_FAILED)
		return 2;
	close(file);
	if (!strncmp(argv[1], "dispatch", 8))
		dispatch(argv[1][8]);
	if (!strcmp(argv[1], "execs"))
		execs();
	reaps();
}
