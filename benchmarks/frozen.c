/* SPDX-License-Identifier: MIT */
/*
 * frozen HOW [GROUP]: stops pagescan for 4 s while a thread of a target stands still, and prints
 * the longest time in which the target did not compute: {"gap_ns", "stopped_ns", "error"}.
 *
 *	not		the control
 *	stop		SIGSTOP to the surgeon
 *	host		SIGSTOP to the process that waits for it
 *	freeze		both are in GROUP, which is frozen: cgroup.freeze or freezer.state
 *	burn		both are in GROUP, which has a quota of processor time: the surgeon uses it up
 *
 * Built from the shim's own files with PS_FAULT, which makes each step of the attach call
 * ps_fault_step().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../pagescan/native/attach.h"

#define SECONDS 4
#define BURNT_NS 50000000u

static const char *how, *group = "";
static volatile struct {
	uint64_t gap;
	pid_t caller;
	pid_t surgeon;
	uint64_t stopped;
	int error;
} * shared;

static uint64_t now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static bool put(const char *name, const char *text)
{
	char path[512];
	int file;
	bool done;

	snprintf(path, sizeof(path), "%s/%s", group, name);
	file = open(path, O_WRONLY | O_CLOEXEC);
	done = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);
	if (file >= 0)
		close(file);
	return done;
}

static void freeze(bool frozen)
{
	if (!put("cgroup.freeze", frozen ? "1" : "0"))
		put("freezer.state", frozen ? "FROZEN" : "THAWED");
}

void ps_fault_step(const char *name)
{
	if (strcmp(name, "entry") || shared->surgeon)
		return;
	shared->surgeon = getpid();
	if (!strcmp(how, "stop"))
		kill(shared->surgeon, SIGSTOP);
	if (!strcmp(how, "host"))
		kill(shared->caller, SIGSTOP);
	if (!strcmp(how, "freeze"))
		freeze(true);
	if (!strcmp(how, "burn"))
		for (uint64_t begun = now_ns(); now_ns() - begun < BURNT_NS;)
			;
}

static _Noreturn void compute(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t before = now_ns(), now;; before = now) {
		now = now_ns();
		if (now - before > shared->gap)
			shared->gap = now - before;
	}
}

static _Noreturn void attach(pid_t target)
{
	struct ps_attach call = {.pid = target, .timeout_ms = 2000};
	struct ps_theatre *theatre;
	int error;

	shared->caller = getpid();
	error = *group && !put("cgroup.procs", "0") ? -EPERM : ps_attach_begin(&call, &theatre);
	if (!error) {
		while (!ps_attach_wait(theatre, 50))
			;
		error = ps_attach_end(theatre, &call);
	}
	shared->stopped = call.stopped_ns;
	shared->error = -error;
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t target, caller;

	how = argc > 1 ? argv[1] : "not";
	group = argc > 2 ? argv[2] : "";
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	target = fork();
	if (!target)
		compute();
	usleep(100000);
	shared->gap = 0;
	caller = fork();
	if (!caller)
		attach(target);
	sleep(SECONDS);
	if (!strcmp(how, "freeze"))
		freeze(false);
	kill(caller, SIGCONT);
	if (shared->surgeon)
		kill(shared->surgeon, SIGCONT);
	waitpid(caller, NULL, 0);
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
	printf("{\"gap_ns\": %lu, \"stopped_ns\": %lu, \"error\": %d}\n", shared->gap,
	       shared->stopped, shared->error);
	return 0;
}
