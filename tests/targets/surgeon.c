/* SPDX-License-Identifier: MIT */
/*
 * Attaches to a target and dies on the way: surgeon PID STATUS sweep|random|burst|volley|whole ROUNDS
 *
 * Built from the shim's own files with PS_FAULT, which makes every step of the attach call
 * ps_fault_step(). sweep: dies at the first step, then at the second, and so on to the last, ROUNDS
 * times. random: dies at ROUNDS random instants. burst: ROUNDS attaches back to back, most of which die,
 * into the same system call. volley: the same, and none of them dies. whole: does not die. After each,
 * or a burst or a volley, the target must do two more rounds within 5 s, or be stopped still if it
 * was. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../pagescan/native/attach.h"
#include "../../pagescan/native/shim.h"
#include "status.h"

#define PATIENCE_US 5000000
#define METHODS 5

static pid_t target;
static volatile struct status *status;
static volatile struct {
	int step;	      /* how far the child came */
	int die_at;	      /* 0: never */
	int methods[METHODS]; /* attaches by enum ps_method, the dead ones included */
	char names[128][16];
	int errors[8]; /* of attaches that ended by themselves and failed */
	int failed;
	struct ps_attach last;
} * child;

void ps_fault_step(const char *name)
{
	int step = ++child->step;

	if (step < 128)
		strncpy((char *)child->names[step], name, 15);
	if (step == child->die_at)
		kill(getpid(), SIGKILL);
}

static char state_of_target(void)
{
	char path[64], text[256], *at;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", target);
	file = fopen(path, "re");
	if (!file)
		return 'X';
	text[fread(text, 1, sizeof(text) - 1, file)] = 0;
	fclose(file);
	at = strrchr(text, ')');
	return at ? at[2] : 'X';
}

static uint64_t now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Attaches in a child, killed so long after its first step (0: never); true if it was. */
static bool attach(uint64_t kill_after_ns)
{
	pid_t pid;
	int how;

	child->step = 0;
	child->last.method = PS_METHOD_NONE;
	pid = fork();
	if (!pid) {
		struct ps_attach call = {.pid = target, .timeout_ms = 2000};
		int error = ps_attach(&call);

		child->last = call;
		if (error) {
			if (child->failed < 8)
				child->errors[child->failed] = error;
			child->failed++;
		}
		child->methods[call.method]++;
		_exit(0);
	}
	if (kill_after_ns) {
		uint64_t begun = now_ns();

		while (!child->step && now_ns() - begun < 1000000000u)
			usleep(20);
		for (begun = now_ns(); now_ns() - begun < kill_after_ns;)
			;
		kill(pid, SIGKILL);
	}
	waitpid(pid, &how, 0);
	return WIFSIGNALED(how);
}

/* NULL: the target goes on as before. */
static const char *verdict(bool was_stopped)
{
	uint64_t begun = status->rounds;

	for (int waited = 0; waited < PATIENCE_US; waited += 200) {
		char state = state_of_target();

		if (state == 'X' || state == 'Z')
			return "dead";
		if (was_stopped && state == 'T')
			return NULL;
		if (!was_stopped && status->rounds >= begun + 2)
			return NULL;
		usleep(200);
	}
	return state_of_target() == 'T' ? "stopped" : "hung";
}

int main(int argc, char **argv)
{
	int rounds = argc == 5 ? atoi(argv[4]) : 0, kills = 0, runs = 0;
	struct rlimit limit = {1 << 20, 1 << 20};
	const char *harm = NULL;
	bool was_stopped, burst, in_a_row;
	int file;

	if (argc != 5)
		return 2;
	target = atoi(argv[1]);
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	child = mmap(NULL, sizeof(*child), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (file < 0 || status == MAP_FAILED || child == MAP_FAILED)
		return 2;
	prlimit(target, RLIMIT_NOFILE, &limit, NULL); /* each death may leave a descriptor */
	burst = !strcmp(argv[3], "burst");
	in_a_row = burst || !strcmp(argv[3], "volley");
	was_stopped = state_of_target() == 'T';
	srandom((unsigned)getpid());
	for (int i = 0; i < rounds && !harm; i++) {
		uint64_t after = 0;
		bool killed = true;

		if (!strcmp(argv[3], "random"))
			after = 1 + (uint64_t)random() % 300000u;
		for (child->die_at = !strcmp(argv[3], "sweep"); killed && !harm; child->die_at++) {
			if (burst)
				child->die_at = (int)(random() % 24);
			killed = attach(after);
			kills += killed;
			runs++;
			if (!in_a_row || i + 1 == rounds)
				harm = verdict(was_stopped);
			if (after || burst || !child->die_at)
				break;
		}
	}
	printf("{\"runs\": %d, \"kills\": %d, \"failed\": %d, \"error\": %d, \"step\": %d, "
	       "\"methods\": [%d, %d, %d, %d, %d], \"stopped_ns\": %lu, \"harm\": \"%s\", \"at\": "
	       "\"%s\"}\n",
	       runs, kills, child->failed, child->errors[0], child->last.step, child->methods[0],
	       child->methods[1], child->methods[2], child->methods[3], child->methods[4],
	       child->last.stopped_ns, harm ? harm : "",
	       harm && child->step < 128 ? (const char *)child->names[child->step] : "");
	return 0;
}

/* The control, linked with --wrap=ps_build_chain: nothing restores the target. */
#ifdef PLAIN
bool __wrap_ps_build_chain(struct surgery *s);

bool __wrap_ps_build_chain(struct surgery *s)
{
	(void)s;
	return false;
}
#endif
