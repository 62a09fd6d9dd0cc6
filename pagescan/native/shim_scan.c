/* SPDX-License-Identifier: MIT */
/* The PAGEMAP_SCAN loop: resumes, reads the kernel's bits, joins neighbours, keeps the pace. */
#include <errno.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pace.h"
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
 * tables can delay it, at 1.3 us each: the longest reach has 1024 of them, and follows a hole as
 * long without any.
 */
#define HOLE_NS 5000u
#define REACH_MAX (2ull << 30)

static uint64_t read_bits(const struct ps_rule *rule, uint64_t bits)
{
	bool written = (bits & rule->written_all) == rule->written_all &&
		       (!rule->written_any || (bits & rule->written_any)) &&
		       !(bits & rule->written_none);

	if (rule->empty_without && !(bits & rule->empty_without))
		bits |= PS_PAGE_IS_WRITTEN;
	if (!written)
		bits &= ~(uint64_t)PS_PAGE_IS_WRITTEN;
	if (bits & rule->unswapped)
		bits &= ~(uint64_t)PS_PAGE_IS_SWAPPED;
	return bits & ~rule->clear;
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

/* Cuts a region where markers begin or end: returns where; clears SWAPPED for markers. */
static uint64_t part_of(const struct ps_rule *rule, int pagemap, uint64_t at, uint64_t end,
			uint64_t page, uint64_t *bits)
{
	bool marker = false;

	if (!rule->markers || !(*bits & PS_PAGE_IS_SWAPPED))
		return end;
	end = run_of_markers(pagemap, at, end, page, &marker);
	if (marker)
		*bits &= ~(uint64_t)PS_PAGE_IS_SWAPPED;
	return end;
}

static bool wanted(const struct ps_rule *rule, uint64_t bits)
{
	bits ^= rule->want_inverted;
	return (bits & rule->want_mask) == rule->want_mask &&
	       (!rule->want_anyof || (bits & rule->want_anyof));
}

/* Appends a region, or joins it with the last one; range_start keeps joins within one range. */
static void append(struct ps_columns *out, uint64_t start, uint64_t end, uint64_t categories,
		   uint64_t range_start, uint64_t join_gap)
{
	uint64_t last = out->length - 1;

	if (out->length && out->start[last] >= range_start && out->end[last] <= start &&
	    start - out->end[last] <= join_gap && out->categories[last] == categories) {
		out->end[last] = end;
		return;
	}
	out->start[out->length] = start;
	out->end[out->length] = end;
	out->categories[out->length] = categories;
	out->length++;
}

/* Whether a rule matches populated pages only, so that holes may be skipped. */
static bool is_of_populated(const struct ps_rule *rule)
{
	uint64_t others = ~(PS_PAGE_IS_PRESENT | PS_PAGE_IS_SWAPPED) | rule->inverted;

	return rule->populated || rule->mask & ~others ||
	       (rule->anyof && !(rule->anyof & others));
}

/* Returns the first populated page of [at, end) that the rule may match; else end; or -errno. */
static int64_t next_populated(const struct ps_job *job, const struct ps_rule *rule, uint64_t at,
			      uint64_t end)
{
	struct ps_page_region first;
	struct ps_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = at,
		.end = end,
		.vec = (uint64_t)(uintptr_t)&first,
		.vec_len = 1,
		.max_pages = 1,
		.category_inverted = rule->inverted & PS_PAGE_IS_WPALLOWED,
		.category_mask = rule->mask & PS_PAGE_IS_WPALLOWED,
		.category_anyof_mask = PS_PAGE_IS_PRESENT | PS_PAGE_IS_SWAPPED,
		.return_mask = PS_PAGE_IS_PRESENT,
	};
	int found = ioctl(job->pagemap, PS_PAGEMAP_SCAN, &arg);

	if (found < 0)
		return -errno;
	if (!found)
		return (int64_t)end;
	first.start -= first.start % rule->align;
	return (int64_t)(first.start > at ? first.start : at);
}

/* The state of the search for holes within one range. */
struct hole {
	unsigned int quick;    /* consecutive slices that had next to no page tables */
	unsigned int patience; /* this many quick slices make a hole; doubled after an error */
	uint64_t reach;	       /* bytes in which to look for a populated page */
};

/* Moves the cursor to the next populated page, or by the reach; returns 0 or -errno. */
static int cross_hole(const struct ps_job *job, const struct ps_rule *rule, struct hole *hole,
		      struct ps_cursor *cursor, uint64_t end, struct ps_pace *pace,
		      struct ps_cost *cost)
{
	uint64_t before = ps_now_ns(), walked, ns;
	int64_t next;

	if (hole->reach < 2 * pace->slice)
		hole->reach = 2 * pace->slice;
	if (end - cursor->at > hole->reach) {
		end = cursor->at + hole->reach + rule->align - 1;
		end -= end % rule->align;
	}
	next = next_populated(job, rule, cursor->at, end);
	if (next < 0)
		return (int)next;
	ns = ps_now_ns() - before;
	walked = (uint64_t)next - cursor->at;
	if (walked < pace->slice)
		hole->patience *= 2;
	if (ns > HOLE_NS)
		hole->reach = hole->quick = 0;
	else if ((uint64_t)next < end)
		hole->quick = 0;
	else if (hole->reach < REACH_MAX)
		hole->reach *= 2;
	cost->pages_walked += walked / (uint64_t)sysconf(_SC_PAGESIZE);
	ps_pace_call(pace, cost, walked, ns);
	cursor->at = (uint64_t)next;
	return 0;
}

int ps_scan_part(const struct ps_job *job, struct ps_part *part, uint64_t begun,
		 struct ps_pace *pace, struct ps_cost *cost)
{
	struct ps_page_region vec[VEC_LENGTH];
	struct ps_cursor *cursor = &part->cursor;
	struct ps_columns *out = &part->out;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), now = begun;

	for (; cursor->range < part->ranges; cursor->range++, cursor->at = 0) {
		const struct ps_rule *rule = &job->rules[part->which[cursor->range]];
		uint64_t range_start = part->starts[cursor->range], end = part->ends[cursor->range];
		unsigned int assumed = 0; /* slices still assumed to be as dense as the last one */
		struct hole hole = {.patience = 1};

		if (!cursor->at)
			cursor->at = range_start;
		while (cursor->at < end) {
			uint64_t room = out->capacity - out->length, next, before;
			struct ps_pm_scan_arg arg = {
				.size = sizeof(arg),
				.flags = rule->flags,
				.start = cursor->at,
				.end = ps_pace_slice(pace, cursor->at, end, rule->align),
				.vec = (uint64_t)(uintptr_t)vec,
				.vec_len = room < VEC_LENGTH ? room : VEC_LENGTH,
				.category_inverted = rule->inverted,
				.category_mask = rule->mask,
				.category_anyof_mask = rule->anyof,
				.return_mask = rule->returned,
			};
			uint64_t matched = 0;
			int found;

			if (!cursor->left)
				return 0;
			if (!room || now - begun > PS_BREATHER_NS)
				return 1;
			if (rule->whole) {
				append(out, cursor->at, end, rule->tag, range_start, job->join_gap);
				break;
			}
			if (assumed) {
				assumed--;
				append(out, cursor->at, arg.end, rule->tag, range_start, job->join_gap);
				cursor->at = arg.end;
				continue;
			}
			if (rule->first)
				arg.max_pages = 1;
			else if (rule->limited && cursor->left != UINT64_MAX)
				arg.max_pages = cursor->left;

			if (hole.quick >= hole.patience && end - cursor->at > pace->slice) {
				found = cross_hole(job, rule, &hole, cursor, end, pace, cost);
				if (found < 0)
					return found;
				now = ps_now_ns();
				continue;
			}
			before = ps_now_ns();
			found = ioctl(job->pagemap, PS_PAGEMAP_SCAN, &arg);
			if (found < 0)
				return -errno;
			now = ps_now_ns();

			/* A complete scan may leave walk_end at an earlier flush. */
			next = arg.walk_end;
			if (found && vec[found - 1].end > next)
				next = vec[found - 1].end;

			for (int i = 0; i < found; i++) {
				uint64_t at = vec[i].start, stop;

				for (; at < vec[i].end && cursor->left; at = stop) {
					uint64_t bits = vec[i].categories, pages;

					stop = part_of(rule, job->pagemap, at, vec[i].end, page, &bits);
					bits = read_bits(rule, bits);
					pages = (stop - at) / page;
					if (!wanted(rule, bits))
						continue;
					matched += stop - at;
					if (out->length == out->capacity) {
						cursor->at = at; /* parts may outnumber regions */
						return 1;
					}
					if (cursor->left != UINT64_MAX) {
						if (pages > cursor->left)
							pages = cursor->left;
						cursor->left -= pages;
					}
					append(out, at, at + pages * page,
					       (bits & rule->want_returned) | rule->tag, range_start,
					       job->join_gap);
				}
			}
			/* Part of a huge page, or a kernel without progress: never loop on it. */
			if (next <= cursor->at)
				return cursor->left ? -EINVAL : 0;
			if (is_of_populated(rule) && now - before < HOLE_NS &&
			    next - cursor->at >= pace->slice_max)
				hole.quick++;
			else
				hole.quick = 0;
			if (!hole.quick && rule->candidates && matched >= (next - cursor->at) / DENSE)
				assumed = ASSUMED;
			cost->pages_walked += (next - cursor->at) / page;
			ps_pace_call(pace, cost, next - cursor->at, now - before);
			cursor->at = next;
			if (rule->first && found)
				break;
		}
	}
	return 0;
}
