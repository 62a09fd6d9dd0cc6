/* SPDX-License-Identifier: MIT */
/* Scans the parts of a job in several threads, if the work is worth the cost of starting them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "pace.h"
#include "scan.h"
#include "shim.h"

#define MOST_THREADS 16u

struct crew {
	const struct ps_job *job;
	uint64_t begun;
	uint64_t until;	       /* all pause at once: the lock is free only if no thread holds it */
	cpu_set_t others;      /* the processors for the new threads: all but the caller's */
	_Atomic uint64_t next; /* index of the next part that no thread has taken */
};

struct worker {
	struct crew *crew;
	struct ps_pace pace;
	struct ps_cost cost;
	pthread_t thread;
};

/* Takes the next part and works on it; false: no part is left, or the time of this call is over. */
static bool work_on_one(struct crew *crew, struct ps_pace *pace, struct ps_cost *cost)
{
	const struct ps_job *job = crew->job;
	uint64_t index = atomic_fetch_add(&crew->next, 1);
	struct ps_part *part;

	if (index >= job->count || ps_now_ns() - crew->begun > PS_BREATHER_NS)
		return false;
	part = &job->parts[index];
	if (part->state == 1)
		part->state = ps_scan_part(job, part, crew->begun, pace, cost);
	if (part->state < 0)
		atomic_store(&crew->next, job->count);
	return true;
}

static void *work(void *given)
{
	struct worker *me = given;

#ifndef __GLIBC__
	sched_setaffinity(0, sizeof(me->crew->others), &me->crew->others);
#endif
	if (me->pace.pause_ns)
		ps_pace_rest(&me->pace);
	while (work_on_one(me->crew, &me->pace, &me->cost))
		;
	return NULL;
}

/*
 * Returns how many of our processors are idle. A thread that waits for a processor keeps holding
 * the lock, so only idle processors get a thread. Source: proc_loadavg(5), for the whole machine.
 */
static uint64_t idle_processors(uint64_t ours)
{
	char text[128] = "";
	uint64_t running = ours;
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) <= 0 ||
	    sscanf(text, "%*s %*s %*s %" SCNu64 "/", &running) != 1)
		running = ours;
	close(fd);
	return running < ours ? ours - running : 0;
}

/*
 * Starts up to `count` threads and returns how many. They take no signals, which are for the
 * calling thread. They may not use its processor either: if the others have only just become idle,
 * the scheduler would put a new thread on ours, and let it wait.
 */
static uint64_t start(struct worker *workers, uint64_t count, struct crew *crew)
{
	uint64_t started = 0, idle;
	pthread_attr_t attributes;
	sigset_t all, before;
	int here = sched_getcpu();

	if (here < 0 || sched_getaffinity(0, sizeof(crew->others), &crew->others))
		return 0;
	idle = idle_processors((uint64_t)CPU_COUNT(&crew->others));
	if (count > idle)
		count = idle;
	CPU_CLR((size_t)here, &crew->others);
	pthread_attr_init(&attributes);
#ifdef __GLIBC__ /* a thread that starts on our processor would wait for us to end */
	pthread_attr_setaffinity_np(&attributes, sizeof(crew->others), &crew->others);
#endif
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (; started < count; started++) {
		workers[started] = (struct worker){.crew = crew, .pace = crew->job->pace};
		if (pthread_create(&workers[started].thread, &attributes, work, &workers[started]))
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return started;
}

static void add(struct ps_cost *sum, const struct ps_cost *one)
{
	sum->scan_ns += one->scan_ns;
	sum->ioctls += one->ioctls;
	sum->pages_walked += one->pages_walked;
	if (one->max_wait_ns > sum->max_wait_ns)
		sum->max_wait_ns = one->max_wait_ns;
}

/* The expected time for the rest, at the pace so far; at the beginning, that of the last scan. */
static uint64_t expected_ns(struct crew *crew)
{
	uint64_t count = crew->job->count, done = atomic_load(&crew->next);

	if (!done)
		return crew->job->last_ns;
	return done < count ? (ps_now_ns() - crew->begun) / done * (count - done) : 0;
}

/* Combines all parts: returns the first error, or 1 if work is left; counts the regions. */
static int outcome(struct ps_job *job)
{
	int result = 0;

	job->regions = 0;
	for (uint64_t i = 0; i < job->count; i++) {
		job->regions += job->parts[i].out.length;
		if (job->parts[i].state && result >= 0)
			result = (int)job->parts[i].state;
	}
	return result;
}

int ps_scan_begin(struct ps_job *job)
{
	for (uint64_t i = 0; i < job->count; i++) {
		struct ps_part *part = &job->parts[i];

		part->cursor = (struct ps_cursor){.left = job->max_pages};
		part->out.length = part->windows.length = 0;
		part->state = 1;
	}
	job->last_ns = job->cost.scan_ns;
	job->cost = (struct ps_cost){0};
	return 0;
}

int ps_scan(struct ps_job *job)
{
	struct crew crew = {.job = job, .begun = ps_now_ns()};
	struct worker workers[MOST_THREADS];
	uint64_t more = job->threads > MOST_THREADS ? MOST_THREADS : job->threads, started = 0;

	if (more > job->count)
		more = job->count;
	if (more > 1)
		job->pace.until = &crew.until;
	do {
		if (more > 1 && expected_ns(&crew) > job->worth_ns) {
			started = start(workers, more - 1, &crew);
			more = 0;
		}
	} while (work_on_one(&crew, &job->pace, &job->cost));

	job->pace.until = NULL;
	for (uint64_t i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		add(&job->cost, &workers[i].cost);
	}
	return outcome(job);
}
