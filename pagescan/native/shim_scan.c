/* SPDX-License-Identifier: MIT */
/*
 * The loop over the ranges of one part of a scan. Each range is scanned slice by slice:
 *
 *	cross_hole     where page tables are nearly missing: go to the next populated page
 *	take_whole     dense memory for a second stage: take it without a call
 *	scan_slice     one PAGEMAP_SCAN, then take_regions and learn
 *
 * take_regions interprets the kernel's bits by the rule, cuts regions at markers, and appends those
 * that match. learn decides about the next slice: dense, a hole, longer or shorter.
 */
#include <errno.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pace.h"
#include "page.h"
#include "scan.h"
#include "shim.h"

/* The kernel allocates room for this many regions per call; twice as many cost 0.4 us more. */
#define VEC_LENGTH 256u
/*
 * If at least 1/DENSE of a slice are candidates, finding candidates costs more than it saves. Then
 * the next ASSUMED slices count as candidates as a whole, without a call, and the slice after them
 * is scanned again.
 */
#define DENSE 4u
#define ASSUMED 7u
/*
 * A slice of full length that takes less than HOLE_NS has next to no page tables: a hole begins.
 * Behind it, a call asks for the next populated page, over a reach that doubles while it finds
 * none. The call stops at the second populated page, so dense memory costs nothing. Only empty page
 * tables can delay it, at 1.3 us each: the longest reach has REACH_TABLES of them, and follows a hole
 * as long without any.
 */
#define HOLE_NS 5000u
#define REACH_TABLES 1024u

/* The state of the search for holes within one range. */
struct hole {
	unsigned int quick;    /* consecutive slices that had next to no page tables */
	unsigned int patience; /* this many quick slices make a hole; doubled after an error */
	uint64_t reach;	       /* bytes in which to look for a populated page */
};

/* One call of ps_scan_part. */
struct walk {
	const struct ps_job *job;
	struct ps_cursor *cursor;
	struct ps_columns *out;
	struct ps_windows *windows;
	struct ps_pace *pace;
	struct ps_cost *cost;
	uint64_t page; /* bytes */
	uint64_t now;
	/* The range that the cursor is in. */
	const struct ps_rule *rule;
	uint64_t start;
	uint64_t end;
	unsigned int assumed; /* slices still assumed to be as dense as the last one */
	struct hole hole;
};

static uint64_t read_bits(const struct ps_rule *rule, uint64_t bits)
{
	bool written = (bits & rule->written_all) == rule->written_all &&
		       (!rule->written_any || (bits & rule->written_any)) &&
		       !(bits & rule->written_none);

	if (rule->empty_without && !(bits & rule->empty_without))
		bits |= PS_PAGE_IS_WRITTEN;
	if (!written)
		bits &= ~(uint64_t)PS_PAGE_IS_WRITTEN;
	if (bits & rule->marker_bits)
		bits &= ~(uint64_t)PS_PAGE_IS_SWAPPED;
	return bits & ~rule->ignored_bits;
}

/*
 * SWAPPED may stand for the marker that a dropped, protected page of a private file leaves. Its
 * word in pagemap has the type of the entry: 31 is a marker (root only; others read 0). Says
 * whether the page at `at` is a marker, and returns the end of the run of pages for which the same
 * is true.
 */
static uint64_t run_of_markers(int pagemap, uint64_t at, uint64_t end, uint64_t page, bool *marker)
{
	uint64_t words[512], count = (end - at) / page, i = 1;
	ssize_t got;

	if (count > sizeof(words) / sizeof(*words))
		count = sizeof(words) / sizeof(*words);
	got = pread(pagemap, words, count * sizeof(*words), (off_t)(at / page * sizeof(*words)));
	if (got < (ssize_t)sizeof(*words))
		return end;
	*marker = (words[0] & PS_PM_SWAPPED) && (words[0] & PS_PM_SWAP_TYPE) == PS_PM_MARKER;
	while (i < (uint64_t)got / sizeof(*words) &&
	       *marker == ((words[i] & PS_PM_SWAPPED) &&
			   (words[i] & PS_PM_SWAP_TYPE) == PS_PM_MARKER))
		i++;
	return at + i * page;
}

/* Returns where a region must be cut since markers begin or end; clears SWAPPED for markers. */
static uint64_t end_of_run(const struct walk *w, uint64_t at, uint64_t end, uint64_t *bits)
{
	bool marker = false;

	if (!w->rule->check_markers || !(*bits & PS_PAGE_IS_SWAPPED))
		return end;
	end = run_of_markers(w->job->pagemap, at, end, w->page, &marker);
	if (marker)
		*bits &= ~(uint64_t)PS_PAGE_IS_SWAPPED;
	return end;
}

static bool is_wanted(const struct ps_rule *rule, uint64_t bits)
{
	const struct ps_masks *masks = &rule->result_masks;

	bits ^= masks->inverted;
	return (bits & masks->mask) == masks->mask && (!masks->anyof || (bits & masks->anyof));
}

/* Appends a region, or joins it with the last one of the same range. */
static void append(const struct walk *w, uint64_t start, uint64_t end, uint64_t categories)
{
	struct ps_columns *out = w->out;
	uint64_t last = out->length - 1;

	if (out->length && out->start[last] >= w->start && out->end[last] <= start &&
	    start - out->end[last] <= w->job->join_gap && out->categories[last] == categories) {
		out->end[last] = end;
		return;
	}
	out->start[out->length] = start;
	out->end[out->length] = end;
	out->categories[out->length] = categories;
	out->length++;
}

/* Takes everything up to `end` without a call. */
static void take_whole(struct walk *w, uint64_t end)
{
	append(w, w->cursor->at, end, w->rule->label);
	w->cursor->at = end;
}

/*
 * Appends the kernel's regions that match, and adds up their bytes. Returns false if the room is
 * used up: the cursor is then at the place to continue.
 */
static bool take_regions(struct walk *w, const struct ps_page_region *regions, int count,
			 uint64_t *matched)
{
	const struct ps_rule *rule = w->rule;
	struct ps_cursor *cursor = w->cursor;

	for (int i = 0; i < count; i++) {
		uint64_t at = regions[i].start, stop;

		for (; at < regions[i].end && cursor->left; at = stop) {
			uint64_t bits = regions[i].categories, pages;

			stop = end_of_run(w, at, regions[i].end, &bits);
			bits = read_bits(rule, bits);
			if (!is_wanted(rule, bits))
				continue;
			if (w->out->length == w->out->capacity) { /* runs may outnumber regions */
				cursor->at = at;
				return false;
			}
			*matched += stop - at;
			pages = (stop - at) / w->page;
			if (pages > cursor->left)
				pages = cursor->left;
			cursor->left -= pages;
			append(w, at, at + pages * w->page, (bits & rule->result_masks.returned) | rule->label);
		}
	}
	return true;
}

/* Whether a rule matches populated pages only, so that holes may be skipped. */
static bool is_of_populated(const struct ps_rule *rule)
{
	const struct ps_masks *masks = &rule->kernel_masks;
	uint64_t others = ~(PS_PAGE_IS_PRESENT | PS_PAGE_IS_SWAPPED) | masks->inverted;

	return rule->skip_holes || masks->mask & ~others ||
	       (masks->anyof && !(masks->anyof & others));
}

/* Moves the cursor to the next populated page, or by the reach; returns 0 or -errno. */
static int cross_hole(struct walk *w)
{
	uint64_t before = ps_now_ns(), at = w->cursor->at, end = w->end, walked, ns;
	uint64_t align = w->rule->align;
	struct hole *hole = &w->hole;
	int64_t next;

	if (hole->reach < 2 * w->pace->slice)
		hole->reach = 2 * w->pace->slice;
	if (end - at > hole->reach) {
		end = at + hole->reach + align - 1;
		end -= end % align;
	}
	next = ps_next_populated(w->job->pagemap, at, end, &w->rule->kernel_masks);
	if (next < 0)
		return (int)next;
	w->now = ps_now_ns();
	ns = w->now - before;
	if ((uint64_t)next < end) {
		next -= next % (int64_t)align;
		if ((uint64_t)next < at)
			next = (int64_t)at;
	}
	walked = (uint64_t)next - at;
	if (walked < w->pace->slice)
		hole->patience *= 2;
	if (ns > HOLE_NS)
		hole->reach = hole->quick = 0;
	else if ((uint64_t)next < end)
		hole->quick = 0;
	else if (hole->reach < REACH_TABLES * ps_table_span())
		hole->reach *= 2;
	w->cost->pages_walked += walked / w->page;
	ps_pace_call(w->pace, w->cost, walked, ns);
	w->cursor->at = (uint64_t)next;
	return 0;
}

/* Accounts for a call that walked `walked` bytes in ns, and decides how to go on behind them. */
static void learn(struct walk *w, uint64_t walked, uint64_t matched, uint64_t ns)
{
	if (is_of_populated(w->rule) && ns < HOLE_NS && walked >= w->pace->slice_max)
		w->hole.quick++;
	else
		w->hole.quick = 0;
	if (!w->hole.quick && w->rule->candidates && matched >= walked / DENSE)
		w->assumed = ASSUMED;
	w->cost->pages_walked += walked / w->page;
	ps_pace_call(w->pace, w->cost, walked, ns);
}

/* Whether calls that protect are told, and there is no room for one more. */
static bool is_told_out(const struct walk *w)
{
	return w->rule->protect && w->windows->start && w->windows->length == w->windows->capacity;
}

/* Tells when a call that protected [start, end) began and ended. */
static void tell_window(const struct walk *w, uint64_t start, uint64_t end, uint64_t before)
{
	struct ps_windows *windows = w->windows;

	if (!w->rule->protect || !windows->start)
		return;
	windows->start[windows->length] = start;
	windows->end[windows->length] = end;
	windows->before[windows->length] = before;
	windows->after[windows->length++] = w->now;
}

/* Scans one slice by a call of the kernel; 0, 1: there is no more room, or -errno. */
static int scan_slice(struct walk *w)
{
	struct ps_page_region regions[VEC_LENGTH];
	const struct ps_masks *masks = &w->rule->kernel_masks;
	uint64_t at = w->cursor->at, room = w->out->capacity - w->out->length;
	struct ps_pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = w->rule->protect ? PS_PM_SCAN_WP_MATCHING : 0,
		.start = at,
		.end = ps_pace_slice(w->pace, at, w->end, w->rule->align),
		.vec = (uint64_t)(uintptr_t)regions,
		.vec_len = room < VEC_LENGTH ? room : VEC_LENGTH,
		.max_pages = w->rule->first_page,
		.category_inverted = masks->inverted,
		.category_mask = masks->mask,
		.category_anyof_mask = masks->anyof,
		.return_mask = masks->returned,
	};
	uint64_t before = ps_now_ns(), matched = 0, next;
	int count = ioctl(w->job->pagemap, PS_PAGEMAP_SCAN, &arg);

	if (count < 0)
		return -errno;
	w->now = ps_now_ns();
	next = arg.walk_end;
	/* A complete scan may leave walk_end at an earlier flush. */
	if (count && regions[count - 1].end > next)
		next = regions[count - 1].end;
	if (!take_regions(w, regions, count, &matched))
		return 1;
	/* Part of a huge page, or a kernel without progress: never loop on it. */
	if (next <= at)
		return w->cursor->left ? -EINVAL : 0;
	tell_window(w, at, next, before);
	learn(w, next - at, matched, w->now - before);
	w->cursor->at = w->rule->first_page && count ? w->end : next;
	return 0;
}

/* Scans the range that the cursor is in; 0: it is done, 1: the call is over, or -errno. */
static int scan_range(struct walk *w, uint64_t begun)
{
	struct ps_cursor *cursor = w->cursor;
	int error = 0;

	while (!error && cursor->at < w->end && cursor->left) {
		if (w->out->length == w->out->capacity || is_told_out(w) ||
		    w->now - begun > PS_BREATHER_NS)
			return 1;
		if (w->rule->whole_range) {
			take_whole(w, w->end);
		} else if (w->assumed) {
			w->assumed--;
			take_whole(w, ps_pace_slice(w->pace, cursor->at, w->end, w->rule->align));
		} else if (w->hole.quick >= w->hole.patience &&
			   w->end - cursor->at > w->pace->slice) {
			error = cross_hole(w);
		} else {
			error = scan_slice(w);
		}
	}
	return error;
}

int ps_scan_part(const struct ps_job *job, struct ps_part *part, uint64_t begun,
		 struct ps_pace *pace, struct ps_cost *cost)
{
	struct ps_cursor *cursor = &part->cursor;
	struct walk w = {
		.job = job,
		.cursor = cursor,
		.out = &part->out,
		.windows = &part->windows,
		.pace = pace,
		.cost = cost,
		.page = ps_page_size(),
		.now = begun,
	};

	for (; cursor->range < part->ranges && cursor->left; cursor->range++, cursor->at = 0) {
		int stopped;

		w.rule = &job->rules[part->which[cursor->range]];
		w.start = part->starts[cursor->range];
		w.end = part->ends[cursor->range];
		w.assumed = 0;
		w.hole = (struct hole){.patience = 1};
		if (!cursor->at)
			cursor->at = w.start;
		stopped = scan_range(&w, begun);
		if (stopped)
			return stopped;
	}
	return 0;
}
