/* SPDX-License-Identifier: MIT */
/* Reads the packed form of regions, one region after the other: see shim_recording.c. */
#ifndef PAGESCAN_PACKED_H
#define PAGESCAN_PACKED_H

#include <errno.h>
#include <stdint.h>

#include "shim.h"

struct reader {
	const uint8_t *bytes;
	uint64_t length;
	uint64_t at;
	int broken;
};

/* Most numbers take one byte or two, in an order that a processor cannot foresee: no branch asks. */
static inline uint64_t get(struct reader *in)
{
	uint64_t number = 0;

	if (in->length - in->at >= 2) {
		uint64_t low = in->bytes[in->at], high = in->bytes[in->at + 1], two = low >> 7;

		if (!(low & high & 0x80)) {
			in->at += 1 + two;
			return (low & 0x7f) | (high & -two) << 7;
		}
	}
	for (unsigned shift = 0; shift < 63 && in->at < in->length; shift += 7) {
		uint8_t byte = in->bytes[in->at++];

		number |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return number;
	}
	in->broken = 1;
	return 0;
}

/*
 * Reads the next region of a look; returns 0 behind the last one, -EBADMSG if it is damaged. No
 * page has a higher number than `most`.
 */
static inline int next_region(struct ps_packed *look, uint64_t most)
{
	struct reader in = {look->bytes, look->length, look->at, 0};
	uint64_t gap, size, room = most - look->end;

	if (in.at == in.length)
		return 0;
	gap = get(&in);
	size = get(&in);
	if (size & 1)
		look->categories = get(&in);
	size = (size >> 1) + 1;
	if (in.broken || gap > room || size > room - gap)
		return -EBADMSG;
	look->at = in.at;
	look->start = look->end + gap;
	look->end = look->start + size;
	return 1;
}

#endif
