/* SPDX-License-Identifier: MIT */
/* What the loop of a scan and its threads share. */
#ifndef PAGESCAN_SCAN_H
#define PAGESCAN_SCAN_H

#include "shim.h"

/* Python looks for signals, and draws progress, that often. */
#define PS_BREATHER_NS 50000000u

/* Goes on with one part; returns what its state is then. */
int ps_scan_part(const struct ps_job *job, struct ps_part *part, struct ps_pace *pace,
		 struct ps_cost *cost);

#endif
