/* SPDX-License-Identifier: MIT */
/* Asks the kernel for one mapping, without the text of /proc/PID/maps. */
#ifndef PAGESCAN_MAPS_H
#define PAGESCAN_MAPS_H

#include "shim.h"
#include "uapi.h"

/*
 * Finds the mapping at an address, or the next one. -ENOENT: nothing is mapped from there on;
 * -ENOTTY: before Linux 6.11. The call is added to cost.
 */
int ps_ask_mapping(int maps, uint64_t at, struct ps_procmap_query *query, struct ps_cost *cost);

#endif
