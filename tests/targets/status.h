/* SPDX-License-Identifier: MIT */
/* What steadfast.c says of itself, in a file that surgeon.c and the tests map. */
#ifndef STATUS_H
#define STATUS_H

#include <stdint.h>

struct status {
	uint64_t rounds;      /* what it does over and over has been done so often */
	uint64_t faults;      /* something was not as it must be */
	uint64_t last_fault;  /* which: see where steadfast.c says so */
	uint64_t late;	      /* calls that took much longer than their timeout */
	uint64_t interrupted; /* calls that returned EINTR without a signal */
	uint64_t lost;	      /* signals that did not end the wait they were sent to */
	uint64_t signals;     /* handled */
	uint64_t unaborted;   /* restartable sequences that went on though they were interrupted */
};

#endif
