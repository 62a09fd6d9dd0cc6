/* SPDX-License-Identifier: MIT */
/* An entry of getdents64(2), for what lists /proc/PID/task without an allocation. */
#ifndef PAGESCAN_ENTRY_H
#define PAGESCAN_ENTRY_H

#include <stdint.h>

struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

#endif
