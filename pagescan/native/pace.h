/* SPDX-License-Identifier: MIT */
/*
 * Limits how long scans hold the target's mmap lock: slices are sized so that one call holds it no
 * longer than max_stall_ns, and once calls have held it for half of that, a pause of pause_ns
 * follows. Without the pause a waiting writer starves (measured on 6.18: readers that return at
 * once overtake it).
 */
#ifndef PAGESCAN_PACE_H
#define PAGESCAN_PACE_H

#include "clock.h"
#include "shim.h"

/*
 * Pauses if due: for pause_ns once this thread has held the lock long enough, and as long as any
 * thread of the same scan pauses. After its own pause a thread waits for the end of the others'
 * pauses.
 */
static inline void ps_pace_rest(struct ps_pace *pace)
{
	uint64_t begun = ps_now_ns(), now = begun, until = 0;

	if (pace->held_ns >= pace->max_stall_ns / 2) {
		until = begun + pace->pause_ns;
		if (pace->until)
			__atomic_store_n(pace->until, until, __ATOMIC_RELAXED);
	} else if (pace->until) {
		until = __atomic_load_n(pace->until, __ATOMIC_RELAXED);
	}
	while (now < until) {
		struct timespec rest = {(time_t)((until - now) / 1000000000u),
					(long)((until - now) % 1000000000u)};

		nanosleep(&rest, NULL);
		now = ps_now_ns();
		if (pace->until)
			until = __atomic_load_n(pace->until, __ATOMIC_RELAXED);
	}
	if (now - begun >= pace->pause_ns)
		pace->held_ns = 0;
}

/* Accounts for a call that took ns and held the lock for a part of it. */
static inline void ps_cost_call(struct ps_cost *cost, uint64_t ns)
{
	cost->ioctls++;
	cost->scan_ns += ns;
	if (ns > cost->max_wait_ns)
		cost->max_wait_ns = ns;
}

/* Accounts for a call that walked `walked` bytes in ns: adapts the slice, pauses if due. */
static inline void ps_pace_call(struct ps_pace *pace, struct ps_cost *cost, uint64_t walked,
				uint64_t ns)
{
	ps_cost_call(cost, ns);

	if (ns > pace->max_stall_ns / 2 && pace->slice > pace->slice_min)
		pace->slice /= 2;
	else if (ns < pace->max_stall_ns / 10 && walked >= pace->slice && pace->slice < pace->slice_max)
		pace->slice *= 2; /* a tenth: two threads at once and denser memory still fit */

	pace->held_ns += ns;
	if (pace->pause_ns)
		ps_pace_rest(pace);
}

/* The end of the slice that starts at `at`: a multiple of align, but never beyond `end`. */
static inline uint64_t ps_pace_slice(const struct ps_pace *pace, uint64_t at, uint64_t end,
				     uint64_t align)
{
	uint64_t stop = at + (pace->slice > align ? pace->slice : align);

	stop -= stop % align;
	return stop > at && stop < end ? stop : end;
}

#endif
