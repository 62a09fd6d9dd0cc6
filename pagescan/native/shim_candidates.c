/* SPDX-License-Identifier: MIT */
/* Chooses the order in which threads are tried: first those for which a stop means least. */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILTERED 16

struct entry { /* of getdents64(2) */
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* A filter weighs more than any call: it need not be suspended where there is none. */
static int rank_of(const struct surgery *s)
{
	return ps_rank_of_call(s) + (ps_has_filter(s) == PS_NO ? 0 : FILTERED);
}

/*
 * Fills in at most `room` threads, the best ones first, and returns how many. Workers of io_uring are
 * left out, and what is not known not to be one.
 */
int ps_list_threads(struct surgery *s, pid_t *tids, int room)
{
	char path[64], buffer[4096] __attribute__((aligned(8)));
	int ranks[room], count = 0, tasks;
	long got;

	snprintf(path, sizeof(path), "/proc/%d/task", s->call->pid);
	tasks = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
