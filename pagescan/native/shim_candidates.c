/* SPDX-License-Identifier: MIT */
/* Chooses the order in which threads are tried: first those that a stop disturbs least. */
#define _GNU_SOURCE
#include "attach.h"
#include "entry.h"

#if defined(__x86_64__)
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILTERED 16

static int open_tasks(const struct surgery *s)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", s->call->pid);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool lives(struct surgery *s, pid_t tid)
{
	char text[512], *at;

	s->tid = tid;
	text[ps_read_file(s, "stat", text, sizeof(text) - 1)] = 0;
	at = strrchr(text, ')'); /* the name may contain any character */
	return at && at[1] && at[2] && !strchr("ZXx", at[2]);
}

/*
 * Returns a thread through which the memory is read: the main one, or another if the main one has
 * exited, because it has released the memory.
 */
pid_t ps_living_thread(struct surgery *s)
{
	char buffer[4096] __attribute__((aligned(8)));
	pid_t found = lives(s, s->call->pid) ? s->call->pid : 0;
	int tasks = found ? -1 : open_tasks(s);
	long got;

	while (tasks >= 0 && !found &&
	       (got = syscall(SYS_getdents64, tasks, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < got && !found;) {
			const struct entry *entry = (const void *)(buffer + at);
			pid_t tid = atoi(entry->name);

			at += entry->length;
			if (tid > 0 && lives(s, tid))
				found = tid;
		}
	}
	if (tasks >= 0)
		close(tasks);
	return found ? found : s->call->pid;
}

/* A filter counts more than any call: a thread without one needs no suspension. */
static int rank_of(const struct surgery *s)
{
	return ps_rank_of_call(s) + (ps_has_filter(s) == PS_NO ? 0 : FILTERED);
}

/*
 * Fills in at most `room` threads, the best ones first, and returns how many. Workers of io_uring
 * are left out, and so is any thread that may be one.
 */
int ps_list_threads(struct surgery *s, pid_t *tids, int room)
{
	char buffer[4096] __attribute__((aligned(8)));
	int ranks[room], count = 0, tasks;
	long got;

	tasks = open_tasks(s);
	if (tasks < 0)
		return -errno;
	while (count < room && (got = syscall(SYS_getdents64, tasks, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < got && count < room;) {
			const struct entry *entry = (const void *)(buffer + at);
			int place = count, rank;

			at += entry->length;
			s->tid = atoi(entry->name);
			if (s->tid <= 0 || ps_is_worker(s) != PS_NO)
				continue;
			rank = rank_of(s);
			for (; place && ranks[place - 1] > rank; place--) {
				ranks[place] = ranks[place - 1];
				tids[place] = tids[place - 1];
			}
			ranks[place] = rank;
			tids[place] = s->tid;
			count++;
		}
	}
	close(tasks);
	return count;
}
#endif
