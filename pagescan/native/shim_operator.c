/* SPDX-License-Identifier: MIT */
/* Means of the operating process: a timer that kills it, and memory without a lock. */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

/*
 * Sets the timer; 0: removes it. The kernel needs no help to kill us, even if we are stopped or
 * frozen.
 */
void ps_kill_me_after(struct surgery *s, uint64_t ns)
{
	struct itimerspec at = {
		.it_value = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}};

	if (s->timer < 0)
		return;
	s->killed_at = ns ? ps_now_ns() + ns : 0;
	syscall(SYS_timer_settime, s->timer, 0, &at, NULL);
}

void ps_begin_surgery(struct surgery *s, struct ps_attach *call, void *room, size_t size)
{
	*s = (struct surgery){.call = call, .room = room, .room_left = size};
	s->timer = s->memory = s->maps = s->pagemap = s->pidfd = s->table = s->own_fds = -1;
	call->uffd = call->left_fd = -1;
	call->method = PS_METHOD_NONE;
	call->step = PS_STEP_NONE;
	call->attempts = 0;
	call->stopped_ns = 0;
	call->killed_by = 0;
}

void *ps_room(struct surgery *s, size_t size)
{
	void *room = s->room;

	size = (size + 63) & ~(size_t)63;
	if (size > s->room_left)
		return NULL;
	s->room += size;
	s->room_left -= size;
	return room;
}
#endif
