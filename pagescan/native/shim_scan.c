/* SPDX-License-Identifier: MIT */
/* The PAGEMAP_SCAN loop: resumes, reads the kernel's bits, joins neighbours, keeps the pace. */
#include <errno.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pace.h"
#include "shim.h"

/* The kernel collects 512 regions before it copies them out and drops the lock: more gains nothing. */
#define VEC_LENGTH 512u
/* Python looks for signals, and draws progress, that often. */
#define BREATHER_NS 50000000u

static uint64_t read_bits(const struct ps_rule *rule, uint64_t bits)
{
	bool written =
		(bits & PS_PAGE_IS_WRITTEN) && (bits & rule->written_all) == rule->written_all &&
		(!rule->written_any || (bits & rule->written_any)) && !(bits & rule->written_none);

	if (!written)
		bits &= ~(uint64_t)PS_PAGE_IS_WRITTEN;
	if (bits & rule->unswapped)
		bits &= ~(uint64_t)PS_PAGE_IS_SWAPPED;
	return bits & ~rule->clear;
}

static bool wanted(const struct ps_rule *rule, uint64_t bits)
{
	bits ^= rule->want_inverted;
	return (bits & rule->want_mask) == rule->want_mask &&
	       (!rule->want_anyof || (bits & rule->want_anyof));
}

/* Appends one region that is wanted; range_start keeps joins within one range. */
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

int ps_scan(int pagemap, const uint64_t *starts, const uint64_t *ends, const uint64_t *which,
	    uint64_t ranges, const struct ps_rule *rules, uint64_t join_gap, struct ps_pace *pace,
	    struct ps_cursor *cursor, struct ps_columns *out, struct ps_cost *cost)
{
	struct ps_page_region vec[VEC_LENGTH];
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begun = ps_now_ns(), now = begun;

	for (; cursor->range < ranges; cursor->range++, cursor->at = 0) {
		const struct ps_rule *rule = &rules[which[cursor->range]];
		uint64_t range_start = starts[cursor->range], end = ends[cursor->range];

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
			int found;

			if (!cursor->left)
				return 0;
			if (!room || now - begun > BREATHER_NS)
				return 1;
			if (rule->whole) {
				append(out, cursor->at, end, rule->tag, range_start, join_gap);
				break;
			}
			if (rule->first)
				arg.max_pages = 1;
			else if (rule->limited && cursor->left != UINT64_MAX)
				arg.max_pages = cursor->left;

			before = ps_now_ns();
			found = ioctl(pagemap, PS_PAGEMAP_SCAN, &arg);
			if (found < 0)
				return -errno;
			now = ps_now_ns();

			/* A complete scan may leave walk_end at an earlier flush. */
			next = arg.walk_end;
			if (found && vec[found - 1].end > next)
				next = vec[found - 1].end;

			for (int i = 0; i < found && cursor->left; i++) {
				uint64_t bits = read_bits(rule, vec[i].categories);
				uint64_t pages = (vec[i].end - vec[i].start) / page;

				if (!wanted(rule, bits))
					continue;
				if (cursor->left != UINT64_MAX) {
					if (pages > cursor->left)
						pages = cursor->left;
					cursor->left -= pages;
				}
				append(out, vec[i].start, vec[i].start + pages * page,
				       (bits & rule->want_returned) | rule->tag, range_start,
				       join_gap);
			}
			/* Part of a huge page, or a kernel that does not go on: never loop on it. */
			if (next <= cursor->at)
				return cursor->left ? -EINVAL : 0;
			cost->pages_walked += (next - cursor->at) / page;
			ps_pace_call(pace, cost, next - cursor->at, now - before);
			cursor->at = next;
			if (rule->first && found)
				break;
		}
	}
	return 0;
}
