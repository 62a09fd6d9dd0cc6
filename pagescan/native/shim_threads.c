/* SPDX-License-Identifier: MIT */
/* Gives the parts of a scan to several threads, where they have more to do than to start them costs. */
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
	uint64_t until;	       /* they pause together: a lock that one of them holds is not free */
	cpu_set_t others;      /* the processors of the others: not that of who called us */
	_Atomic uint64_t next; /* the part that nobody has taken yet */
};

struct worker {
	struct crew *crew;
	struct ps_pace pace;
	struct ps_cost cost;
	pthread_t thread;
};

/* Takes one part and goes on with it; false: there is no more to take. */
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
 * How many processors of ours have nothing to do. A thread that waits for its turn holds the lock all
 * the while: only those are taken that nobody runs on. Source: proc_loadavg(5), of the whole machine.
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
 * Returns how many were started. Signals are for the thread that called us; so is its processor: where
 * the others just became idle, the scheduler would have a new thread wait for ours.
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
#ifdef __GLIBC__ /* so that it begins there: on ours it would wait for us to end */
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

/* How long it is going to take if it goes on as it began; at the beginning, as it did last time. */
static uint64_t expected_ns(struct crew *crew)
{
	uint64_t count = crew->job->count, done = atomic_load(&crew->next);

	if (!done)
		return crew->job->last_ns;
	return done < count ? (ps_now_ns() - crew->begun) / done * (count - done) : 0;
}

/* What all parts say: the first error, whether there is more to do, how many regions there are. */
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
		part->out.length = 0;
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
