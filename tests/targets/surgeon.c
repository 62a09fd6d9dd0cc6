/* SPDX-License-Identifier: MIT */
/*
 * Attaches to a target and dies on the way:
 * surgeon PID STATUS sweep|random|burst|volley|whole ROUNDS [surgeon|caller|both|thread|stop|any]
 *
 * Built from the shim's own files with PS_FAULT, which makes every step of the attach call
 * ps_fault_step(). sweep: dies at the first step, then at the second, and so on to the last, ROUNDS
 * times. random: ROUNDS deaths at random instants. burst: ROUNDS attaches in a row, into the same
 * system call, most of which die. volley: the same, and none dies. whole: does not die. After each
 * attach, or after the whole burst or volley, the target must do two more rounds within 5 s, or
 * still be stopped if it was. The last word chooses what dies: the shim's surgeon, the process that
 * waits for it (caller), both at once, or the only process where a thread performs the attach.
 * stop: the surgeon is stopped, not killed. any: one of the first four each time, and sometimes a
 * caller that reaps every child. A path in the place of that word: nothing dies, but the target's
 * cgroup there (v1, freezer) is frozen when the thread is about to make its call, until the attach has
 * given up.
 * Prints one JSON object.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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
#define MOST 20 /* attaches per requested death */

static pid_t target;
static const char *group; /* nothing dies: the target is frozen */
static bool surgeon_dies = true, caller_dies, by_thread, reaps;
static int deadly = SIGKILL;
static volatile struct status *status;
static volatile struct {
	int step;	      /* the last step of the child */
	bool frozen;
	pid_t caller;
	pid_t surgeon; /* the shim's; known from its first step on */
	bool killed;   /* whether the surgeon was killed, according to its caller */
	int die_at;	      /* 0: never */
	int methods[METHODS]; /* attaches by enum ps_method, including those that died */
	char names[128][16];
	int errors[8]; /* of attaches that returned an error */
	int failed;
	struct ps_attach last;
} * child;

static void freeze(const char *word)
{
	int file = open(group, O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, word, strlen(word)) < 0)
		abort();
	close(file);
}

static void die(void)
{
	if (caller_dies)
		kill(child->caller, SIGKILL);
	if (surgeon_dies)
		kill(child->surgeon, deadly);
}

void ps_fault_step(const char *name)
{
	int step = ++child->step;

	child->surgeon = getpid();
	if (step < 128)
		strncpy((char *)child->names[step], name, 15);
	if (group && !child->frozen && !strcmp(name, "mask")) {
		child->frozen = true;
		freeze("FROZEN");
	} else if (step == child->die_at) {
		die();
	}
}

static char state_of(pid_t pid)
{
	char path[64], text[256], *at;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
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

static int operate(struct ps_attach *call)
{
	struct ps_theatre *theatre;
	int error;

	do {
		error = ps_attach_begin(call, &theatre);
		if (error)
			return error;
		while (!ps_attach_wait(theatre, 50))
			;
		error = ps_attach_end(theatre, call);
		call->turn++;
	} while (error == -EAGAIN);
	return error;
}

/* A host that waits for any child, also those of a library's threads. */
static void *reap(void *unused)
{
	for (;;)
		if (waitpid(-1, NULL, WUNTRACED | (random() % 2 ? __WALL : 0)) < 0)
			usleep(10);
	return unused;
}

static void choose_victim(const char *word)
{
	static const char *const all[] = {"surgeon", "caller", "both", "thread"};

	if (!strcmp(word, "any")) {
		word = all[random() % 4];
		reaps = random() % 2 && strcmp(word, "thread");
	}
	by_thread = !strcmp(word, "thread");
	caller_dies = !strcmp(word, "caller") || !strcmp(word, "both");
	surgeon_dies = strcmp(word, "caller");
	deadly = strcmp(word, "stop") ? SIGKILL : SIGSTOP;
}

static _Noreturn void run_caller(void)
{
	pthread_t thread;
	struct ps_attach call = {.pid = target, .timeout_ms = 2000, .by_thread = by_thread};
	int error;

	child->caller = getpid();
	if (reaps)
		pthread_create(&thread, NULL, reap, NULL);
	error = operate(&call);
	child->last = call;
	child->killed = error == -ECANCELED || (deadly == SIGSTOP && error == -ETIMEDOUT);
	if (error && !child->killed) {
		if (child->failed < 8)
			child->errors[child->failed] = error;
		child->failed++;
	}
	if (!child->killed || call.method) /* killed before the method was known */
		child->methods[call.method]++;
	_exit(0);
}

/* A surgeon whose caller is dead finishes its work. */
static void wait_for_orphan(void)
{
	for (int waited = 0; child->surgeon && waited < PATIENCE_US; waited += 200) {
		char state = state_of(child->surgeon);

		if (state == 'X' || state == 'Z')
			return;
		usleep(200);
	}
}

/*
 * Attaches in a child that is killed the given time after its first step (0: never); true if it
 * was.
 */
static bool attach(uint64_t kill_after_ns)
{
	siginfo_t ended = {.si_pid = 0};
	pid_t pid;
	int how;

	child->step = 0;
	child->surgeon = 0;
	child->killed = false;
	child->last.method = PS_METHOD_NONE;
	pid = fork();
	if (!pid)
		run_caller();
	if (kill_after_ns) {
		uint64_t begun = now_ns();

		while (!child->step && now_ns() - begun < 1000000000u &&
		       waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		       !ended.si_pid)
			usleep(20);
		for (begun = now_ns(); now_ns() - begun < kill_after_ns;)
			;
		if (state_of(child->surgeon) != 'X')
			die();
	}
	waitpid(pid, &how, 0);
	if (child->frozen)
		freeze("THAWED");
	if (WIFSIGNALED(how))
		wait_for_orphan();
	return WIFSIGNALED(how) || child->killed;
}

/* NULL: the target goes on as before. */
static const char *verdict(bool was_stopped)
{
	uint64_t begun = status->rounds;
	int dead = 0;

	for (int waited = 0; waited < PATIENCE_US; waited += 200) {
		char state = state_of(target);

		/* During the exec of another thread there is no main thread for a moment. */
		dead = state == 'X' || state == 'Z' ? dead + 1 : 0;
		if (dead > 5000)
			return "dead";
		if (was_stopped && state == 'T')
			return NULL;
		if (!was_stopped && status->rounds >= begun + 2)
			return NULL;
		usleep(200);
	}
	return state_of(target) == 'T' ? "stopped" : "hung";
}

int main(int argc, char **argv)
{
	int rounds = argc > 4 ? atoi(argv[4]) : 0, kills = 0, runs = 0;
	struct rlimit limit = {1 << 20, 1 << 20};
	const char *harm = NULL;
	bool was_stopped, burst, in_a_row, at_random;
	int file;

	if (argc < 5 || argc > 6)
		return 2;
	group = argc == 6 && *argv[5] == '/' ? argv[5] : NULL;
	target = atoi(argv[1]);
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	child = mmap(NULL, sizeof(*child), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (file < 0 || status == MAP_FAILED || child == MAP_FAILED)
		return 2;
	prlimit(target, RLIMIT_NOFILE, &limit, NULL); /* each death may leave one */
	burst = !strcmp(argv[3], "burst");
	in_a_row = burst || !strcmp(argv[3], "volley");
	was_stopped = state_of(target) == 'T';
	srandom((unsigned)getpid());
	at_random = !strcmp(argv[3], "random");
	for (int i = 0; (at_random ? kills : i) < rounds && i < MOST * rounds && !harm; i++) {
		uint64_t after = 0;
		bool killed = true;

		if (argc == 6)
			choose_victim(argv[5]);
		if (at_random)
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

/* Linked with --wrap=ioctl: imitates a kernel before 6.11. */
#ifdef OLDER
#include "../../pagescan/native/uapi.h"

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	if (request != PS_PROCMAP_QUERY)
		return __real_ioctl(fd, request, argument);
	errno = ENOTTY;
	return -1;
}
#endif
