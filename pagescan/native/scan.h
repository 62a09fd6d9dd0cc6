/* SPDX-License-Identifier: MIT */
/* What the loop of a scan and its threads share. */
#ifndef PAGESCAN_SCAN_H
#define PAGESCAN_SCAN_H

#include "shim.h"

/* Python looks for signals, and draws progress, that often. */
#define PS_BREATHER_NS 50000000u

/* Goes on with one part, in a call that began then; returns what its state is afterwards. */
int ps_scan_part(const struct ps_job *job, struct ps_part *part, uint64_t begun,
		 struct ps_pace *pace, struct ps_cost *cost);

#endif
