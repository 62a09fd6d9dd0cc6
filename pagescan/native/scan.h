/* SPDX-License-Identifier: MIT */
/* Shared by the loop of a scan (shim_scan.c) and its threads (shim_threads.c). */
#ifndef PAGESCAN_SCAN_H
#define PAGESCAN_SCAN_H

#include "shim.h"

/* A call returns to Python after this time, for signals and progress. */
#define PS_BREATHER_NS 50000000u

/* Continues one part in a call that began at `begun`; returns its state: 0 done, 1 more, -errno. */
int ps_scan_part(const struct ps_job *job, struct ps_part *part, uint64_t begun,
		 struct ps_pace *pace, struct ps_cost *cost);

#endif
