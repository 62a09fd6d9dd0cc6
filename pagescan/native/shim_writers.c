/* SPDX-License-Identifier: MIT */
/*
 * The join of `who`: finds the writer of each written page among page-fault samples.
 *
 * A page was written before the call that protected it: its last sample before that call is the
 * write, since a read fault may come first. A store during the call is in this look or in the next;
 * so samples in the window of the call count only for a page that has no earlier one.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "page.h"
#include "shim.h"

struct entry {
	uint64_t page; /* its address */
	uint64_t time;
	int64_t sample; /* its index; -1: it is used up */
};

struct window {
	uint64_t start, end, before, after;
};

struct join {
	struct entry *entries; /* by page, then by time */
	struct window *windows;
	int64_t entry_count, window_count;
	int64_t window; /* the first one that does not end before the current page */
	struct window others; /* for pages that no call has protected */
	struct ps_faults *samples;
	struct ps_writers *out;
};

static int by_page(const void *one, const void *other)
{
	const struct entry *a = one, *b = other;

	if (a->page != b->page)
		return a->page < b->page ? -1 : 1;
	return a->time < b->time ? -1 : a->time > b->time;
}

static int by_start(const void *one, const void *other)
{
	const struct window *a = one, *b = other;

	return a->start < b->start ? -1 : a->start > b->start;
}

static int prepare(struct join *j, const struct ps_windows *windows)
{
	uint64_t page = ps_page_size();
	int64_t count = j->samples->length;

	j->entries = malloc(sizeof(*j->entries) * ((size_t)count + 1));
	j->windows = malloc(sizeof(*j->windows) * ((size_t)windows->length + 1));
	if (!j->entries || !j->windows)
		return -ENOMEM;
	for (int64_t i = 0; i < count; i++)
		j->entries[i] = (struct entry){j->samples->address[i] & ~(page - 1), j->samples->time[i], i};
	for (uint64_t i = 0; i < windows->length; i++)
		j->windows[i] = (struct window){windows->start[i], windows->end[i], windows->before[i],
						windows->after[i]};
	j->entry_count = count;
	j->window_count = (int64_t)windows->length;
	qsort(j->entries, (size_t)count, sizeof(*j->entries), by_page);
	qsort(j->windows, windows->length, sizeof(*j->windows), by_start);
	return 0;
}

/* The window of a page; pages are asked for in ascending order. */
static struct window window_of(struct join *j, uint64_t page)
{
	while (j->window < j->window_count && j->windows[j->window].end <= page)
		j->window++;
	if (j->window < j->window_count && j->windows[j->window].start <= page)
		return j->windows[j->window];
	return j->others;
}

/*
 * Picks the writer among the entries [from, to) of one page, or of one unit, and uses up what is
 * older than it; returns the index of its sample, or -1. `many`: other code has a sample, too.
 */
static int64_t pick(struct join *j, int64_t from, int64_t to, const struct window *window, bool *many)
{
	struct entry *entries = j->entries;
	int64_t last = -1, in_window = -1, sample;

	for (int64_t i = from; i < to; i++) {
		if (entries[i].time <= window->before) {
			if (last < 0 || entries[i].time >= entries[last].time)
				last = i;
		} else if (entries[i].time <= window->after &&
			   (in_window < 0 || entries[i].time < entries[in_window].time)) {
			in_window = i;
		}
	}
	if (last < 0)
		last = in_window;
	if (last < 0)
		return -1;
	sample = entries[last].sample;
	for (int64_t i = from; i < to; i++) {
		if (entries[i].time > window->before && i != last)
			continue;
		*many |= j->samples->ip[entries[i].sample] != j->samples->ip[sample];
		entries[i].sample = -1;
	}
	return sample;
}

/* Appends pages to the last run if the writer is the same. */
static int add_run(struct ps_writers *out, uint64_t start, uint64_t end, const struct ps_faults *samples,
		   int64_t sample, uint64_t region)
{
	uint64_t ip = sample < 0 ? 0 : samples->ip[sample];
	uint64_t thread = sample < 0 ? 0 : samples->thread[sample];
	uint64_t origin = sample < 0 ? 0 : samples->origin[sample];
	uint64_t last = out->length - 1;

	if (out->length && out->end[last] == start && out->ip[last] == ip &&
	    out->thread[last] == thread && out->origin[last] == origin && out->region[last] == region) {
		out->end[last] = end;
		return 0;
	}
	if (out->length == out->capacity)
		return -ENOBUFS;
	out->start[out->length] = start;
	out->end[out->length] = end;
	out->ip[out->length] = ip;
	out->thread[out->length] = thread;
	out->origin[out->length] = origin;
	out->region[out->length++] = region;
	return 0;
}

/* Joins the pages of one region; `at` is the first entry that may belong to it, in and out. */
static int join_region(struct join *j, const struct ps_columns *written, uint64_t region, uint64_t unit,
		       int64_t *at)
{
	uint64_t page = ps_page_size(), next;
	struct ps_writers *out = j->out;

	for (uint64_t start = written->start[region]; start < written->end[region]; start = next) {
		uint64_t block = start - start % unit;
		struct window window = window_of(j, start);
		int64_t from, to, sample;
		bool many = false;
		int rc;

		next = block + unit < written->end[region] ? block + unit : written->end[region];
		while (*at < j->entry_count && j->entries[*at].page < block)
			++*at;
		for (from = to = *at; to < j->entry_count && j->entries[to].page < block + unit;)
			to++;
		sample = pick(j, from, to, &window, &many);
		rc = add_run(out, start, next, j->samples, sample, region);
		if (rc < 0)
			return rc;
		if (sample >= 0)
			out->attributed += (next - start) / page;
		if (many)
			out->ambiguous += (next - start) / page;
	}
	return 0;
}

/* Keeps the samples that a later look may need, and moves them to the front. */
static int keep_rest(struct join *j, uint64_t grace)
{
	struct ps_faults *samples = j->samples;
	uint8_t *kept = calloc(1, (size_t)samples->length + 1);
	int64_t length = 0;

	if (!kept)
		return -ENOMEM;
	j->window = 0;
	for (int64_t i = 0; i < j->entry_count; i++) {
		struct window window = window_of(j, j->entries[i].page);

		if (j->entries[i].sample >= 0 && j->entries[i].time + grace > window.before)
			kept[j->entries[i].sample] = 1;
	}
	for (int64_t i = 0; i < samples->length; i++) {
		if (!kept[i])
			continue;
		samples->thread[length] = samples->thread[i];
		samples->time[length] = samples->time[i];
		samples->ip[length] = samples->ip[i];
		samples->origin[length] = samples->origin[i];
		samples->address[length++] = samples->address[i];
	}
	samples->length = length;
	free(kept);
	return 0;
}

int ps_writers_join(const struct ps_columns *written, const uint64_t *units,
		    const struct ps_windows *windows, uint64_t since, uint64_t until, uint64_t grace,
		    struct ps_faults *samples, struct ps_writers *out)
{
	struct join j = {.others = {0, UINT64_MAX, since, until}, .samples = samples, .out = out};
	int64_t at = 0;
	int rc = prepare(&j, windows);

	for (uint64_t i = 0; rc >= 0 && i < written->length; i++)
		rc = join_region(&j, written, i, units[i], &at);
	if (rc >= 0)
		rc = keep_rest(&j, grace);
	free(j.entries);
	free(j.windows);
	return rc;
}
