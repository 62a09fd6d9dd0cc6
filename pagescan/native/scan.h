/* SPDX-License-Identifier: MIT */
/* Shared by the files that call PAGEMAP_SCAN: single probes, and the loop over a part of a scan. */
#ifndef PAGESCAN_SCAN_H
#define PAGESCAN_SCAN_H

#include "shim.h"

/* A call returns to Python after this time, for signals and progress. */
#define PS_BREATHER_NS 50000000u

/* Returns 1 and the first page of [start, end) that matches, 0 if none does, or -errno. */
int ps_first_region(int pagemap, uint64_t start, uint64_t end, const struct ps_masks *masks,
		    struct ps_page_region *ret);

/*
 * Returns the address of the first present or swapped page of [start, end), `end` if none exists,
 * or -errno. Of the masks only WPALLOWED is used.
 */
int64_t ps_next_populated(int pagemap, uint64_t start, uint64_t end, const struct ps_masks *masks);

/* Continues one part in a call that began at `begun`; returns its state: 0 done, 1 more, -errno. */
int ps_scan_part(const struct ps_job *job, struct ps_part *part, uint64_t begun,
		 struct ps_pace *pace, struct ps_cost *cost);

#endif
