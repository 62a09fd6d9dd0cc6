/* SPDX-License-Identifier: MIT */
/* The counters of steadfast.c, in a file that surgeon.c and the tests map. */
#ifndef STATUS_H
#define STATUS_H

#include <stdint.h>

struct status {
	uint64_t rounds;      /* how many rounds are done */
	uint64_t faults;      /* differences from what must be */
	uint64_t last_fault;  /* the number of the last one; steadfast.c explains it */
	uint64_t late;	      /* calls that took much longer than their timeout */
	uint64_t interrupted; /* calls that returned EINTR without a signal */
	uint64_t lost;	      /* signals that did not end the wait that they were sent to */
	uint64_t signals;     /* handled */
	/* restartable sequences that went on although they were interrupted */
	uint64_t unaborted;
};

#endif
