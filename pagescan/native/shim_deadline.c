/* SPDX-License-Identifier: MIT */
/* A deadline for this process: a kernel timer kills it, whatever state it is in. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

int ps_deadline_make(void)
{
	struct sigevent kill = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	int timer; /* the kernel's, not libc's */

	return syscall(SYS_timer_create, CLOCK_MONOTONIC, &kill, &timer) < 0 ? -errno : timer;
}

int ps_deadline_set(int timer, uint32_t ms)
{
	struct itimerspec at = {.it_value = {ms / 1000, ms % 1000 * 1000000l}};

	return syscall(SYS_timer_settime, timer, 0, &at, NULL) < 0 ? -errno : 0;
}
