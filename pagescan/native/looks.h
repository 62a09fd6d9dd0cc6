/* SPDX-License-Identifier: MIT */
/* Reads looks in their packed form by parts: regions, or their pages in one of some ranges. */
#ifndef PAGESCAN_LOOKS_H
#define PAGESCAN_LOOKS_H

#include "packed.h"
#include "search.h"

struct parts {
	const struct ps_looks *looks;
	struct ps_packed look;
	uint64_t most;	/* no page has a higher number */
	uint64_t range; /* the range that may have the next part */
	uint64_t at;	/* in pages: what is left of the region that was read last */
	uint64_t stop;
};

static inline struct parts parts_of(const struct ps_looks *looks, uint64_t index)
{
	uint64_t begin = index ? looks->ends[index - 1] : 0;

	return (struct parts){
		.looks = looks,
		.look = {.bytes = looks->bytes + begin, .length = looks->ends[index] - begin},
		.most = UINT64_MAX / looks->page_size,
	};
}

/* Cuts the next part out of the region that was read last; 0: no part is left. */
static inline int cut(struct parts *in, uint64_t *start, uint64_t *end)
{
	const struct ps_looks *looks = in->looks;
	uint64_t size = looks->page_size, low = in->at, high = in->stop;

	in->at = in->stop;
	if (looks->starts) {
		in->range = next_behind(looks->stops, in->range, looks->ranges, low * size);
		if (in->range == looks->ranges)
			return 0;
		low = later(low, looks->starts[in->range] / size);
		high = earlier(high, looks->stops[in->range] / size);
		if (low >= high)
			return 0;
		in->at = high;
	}
	*start = low;
	*end = high;
	return 1;
}

/* Reads the next part of a whole look, in pages; returns 0 behind the last one. */
static inline int next_part(struct parts *in, uint64_t *start, uint64_t *end)
{
	for (;;) {
		if (in->at < in->stop && cut(in, start, end))
			return 1;
		if (next_region(&in->look, in->most) <= 0)
			return 0;
		in->at = in->look.start;
		in->stop = in->look.end;
	}
}

#endif
