/* SPDX-License-Identifier: MIT */
/*
 * The shim: system calls, and the loops that run once a page, a region or a mapping.
 *
 * Every function returns >= 0, or -errno; none is void: cffi would ask for Python's None, an object,
 * where a C program opens this without Python. Nothing is allocated that outlives a call, nothing is
 * formatted and nothing decided here. Addresses are bytes, intervals half-open.
 */
#ifndef PAGESCAN_SHIM_H
#define PAGESCAN_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "include/pagescan_writewatch.h"
#include "uapi.h"

/* What the cdef of _build.py declares to Python stands between the two markers, word for word. */
/* cdef begin */
/* The masks of PAGEMAP_SCAN(2const), over PAGE_IS_* bits. */
struct ps_masks {
	uint64_t mask;
	uint64_t inverted;
	uint64_t anyof;
	uint64_t returned;
};

/*
 * What the kernel is asked in one kind of mapping, and how its bits are read there: the rules are made
 * in Python. A page is written when it has the bit, all of written_all, one of written_any (0: no such
 * condition) and none of written_none.
 */
struct ps_rule {
	struct ps_masks kernel_masks; /* what the kernel gets */
	struct ps_masks result_masks; /* what is wanted of the bits as read by this rule */
	uint64_t protect;     /* 1: write-protect what matches, in the same step */
	uint64_t first_page;  /* 1: the first page that matches is enough, in each range */
	uint64_t whole_range; /* 1: no call, the range is the answer */
	uint64_t align;       /* slices end on multiples of this: whole huge pages */
	uint64_t written_all;
	uint64_t written_any;
	uint64_t written_none;
	uint64_t empty_without; /* an entry with none of these is empty, and counts as written; 0: not so */
	uint64_t marker_bits;	/* with one of these, SWAPPED is a marker and not swap */
	uint64_t ignored_bits;	/* these mean nothing here */
	uint64_t label;		/* bits that every row of the answer has */
	uint64_t candidates;	/* 1: the answer may have more than what matches: it is scanned again */
	uint64_t skip_holes;	/* 1: only present or swapped pages matter, long holes are skipped */
	uint64_t check_markers; /* 1: SWAPPED may be a marker: ask pagemap; never with `protect` */
};

struct ps_pace {
	uint64_t max_stall_ns; /* no call should hold the target's mmap lock longer */
	uint64_t pause_ns;     /* how long the lock is left alone after so much holding */
	uint64_t slice;        /* bytes of the next call; in and out, adapts to max_stall_ns */
	uint64_t slice_min;    /* it is never made shorter */
	uint64_t slice_max;    /* the first dense slice after a long hole has this size at most */
	uint64_t held_ns;      /* in and out: held since the last pause */
	uint64_t *until;       /* of several threads: when the pause of them all is over; or NULL */
};

struct ps_cost {
	uint64_t scan_ns;
	uint64_t max_wait_ns; /* the longest single call */
	uint64_t ioctls;
	uint64_t pages_walked;
};

struct ps_cursor {
	uint64_t range; /* index of the range the scan is in */
	uint64_t at;    /* address to go on from; 0: the start of that range */
	uint64_t left;  /* pages still wanted; all: UINT64_MAX */
};

struct ps_columns {
	uint64_t *start;
	uint64_t *end;
	uint64_t *categories;
	uint64_t capacity;
	uint64_t length;
};

/* A part of a scan: ascending ranges, each with the index of its rule, and the answer to them. */
struct ps_part {
	const uint64_t *starts;
	const uint64_t *ends;
	const uint64_t *which;
	uint64_t ranges;
	struct ps_cursor cursor;
	struct ps_columns out;
	int64_t state; /* 1: not done; 0: done; -errno: failed where the cursor is */
};

struct ps_job {
	int32_t pagemap;
	uint32_t threads;  /* at most so many, */
	uint64_t worth_ns; /* where more than this is left to do */
	struct ps_part *parts;
	uint64_t count;
	const struct ps_rule *rules;
	uint64_t join_gap;  /* neighbours of a range with equal categories, so close, become one */
	uint64_t max_pages; /* in each part */
	struct ps_pace pace;
	struct ps_cost cost;
	uint64_t regions; /* out: in all parts */
	uint64_t last_ns; /* what it took last time, 0: there was none */
};

/* Starts anew: nothing was scanned, nothing found. */
int ps_scan_begin(struct ps_job *job);
/*
 * Goes on with the parts that are not done, and appends what it finds to their out.
 * 0: all done. 1: an out is full, or it is time to look for signals: call again. -errno: one failed.
 */
int ps_scan(struct ps_job *job);

int ps_uffd_open(void); /* of this process */
int ps_uffd_api(int uffd, uint64_t features);
int ps_uffd_register(int uffd, uint64_t start, uint64_t end);
/* 1: the page at start is of a mapping that is registered, in the address space of pagemap. */
int ps_uffd_is_registered(int pagemap, uint64_t start);
int ps_uffd_unregister(int uffd, uint64_t start, uint64_t end);
/*
 * Whether a userfaultfd belongs to the address space that pagemap shows: 1 or 0. The mapping at
 * [start, end), a whole one, is registered for a moment. -EBUSY: another userfaultfd has it.
 */
int ps_uffd_is_of(int uffd, int pagemap, uint64_t start, uint64_t end);
/*
 * Does that in slices, to [start, end) of one mapping; done: where it stopped. 1: it is time to look for signals, go on
 * from there. Slices have one border more than the mapping: it merges again with what follows.
 */
int ps_uffd_unregister_slices(int uffd, int pagemap, uint64_t start, uint64_t end, uint64_t align,
			      struct ps_pace *pace, uint64_t *done, struct ps_cost *cost);
/* Write-protects [start, end), markers in holes included, or lifts that; done: where it stopped. */
int ps_uffd_protect(int uffd, uint64_t start, uint64_t end, int protect, uint64_t align,
		    struct ps_pace *pace, uint64_t *done, struct ps_cost *cost);

/*
 * Huge pages that were split, of one mapping: [start, end), whole ones. They are put back where all of
 * their pages are present and nobody else's.
 */
struct ps_collapse {
	int32_t pagemap;
	int32_t pidfd;	 /* of the target; -1: this very process */
	int32_t file;	 /* of shared memory, -1: private memory */
	int32_t refused; /* in and out: CAP_SYS_NICE is missing, no other call is tried */
	uint64_t offset; /* of start in the file */
	uint64_t size;	 /* of a huge page */
	uint64_t start;
	uint64_t end;
	uint64_t at;	   /* in and out: where to go on */
	uint64_t restored; /* in and out, as the next two: bytes that are huge again */
	uint64_t lost;	   /* that are populated, and in no huge page */
	uint64_t denied;   /* of these, what only a refusal stood against */
};

/* 0: done. 1: it is time to look for signals, call again. -errno: the address space is gone. */
int ps_collapse(struct ps_collapse *job, struct ps_pace *pace, struct ps_cost *cost);

/*
 * Counts pages of a part of a file, by cachestat(2) (6.5): those in memory, and those that were there. Of a
 * file in shared memory these are on swap.
 */
int ps_file_pages(int file, uint64_t offset, uint64_t size, uint64_t *in_memory, uint64_t *elsewhere);

/* The whole, aligned units of regions that have other categories than these; out holds as many rows. */
int ps_whole_units(const struct ps_columns *regions, uint64_t unit, uint64_t left_out,
		   struct ps_columns *out);

/* One row a line of /proc/PID/maps; names are (offset, length) into the text. */
struct ps_maps {
	uint64_t *start;
	uint64_t *end;
	uint64_t *offset;
	uint64_t *inode;
	uint64_t *device; /* major << 32 | minor */
	uint64_t *flags;  /* PS_MAP_* */
	uint64_t *name_at;
	uint64_t *name_length;
	uint64_t *page_size; /* 0: not asked, the usual one */
	uint64_t capacity;
	uint64_t length;
	struct ps_cost cost; /* in and out: of PROCMAP_QUERY */
};

/*
 * Fills as many rows as fit and returns 0, or 1 when the text has more lines than that. maps is an
 * open /proc/PID/maps for PROCMAP_QUERY, or -1; -ENOTTY: this kernel has none, page_size is 0 all over.
 */
int ps_maps_parse(const char *text, uint64_t length, int maps, struct ps_maps *out);

/*
 * The algebra of region lists: see shim_regions.c. Ranges are ascending and disjoint, as mappings are.
 * 1: there was not enough room; out->length rows are enough.
 *
 * join cuts regions at the borders of ranges; owner is the index of the range, -1 for what lies in none.
 */
int ps_join(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	    uint64_t ranges, struct ps_columns *out, int64_t *owner);
/* The parts of regions that lie inside any range, and the parts that lie in none. */
int ps_inside(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	      uint64_t ranges, struct ps_columns *out);
int ps_outside(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	       uint64_t ranges, struct ps_columns *out);
/* Lays regions over others: where both are, the upper categories count; `outside`: and elsewhere. */
int ps_overlay(const struct ps_columns *under, const struct ps_columns *over, uint64_t outside,
	       struct ps_columns *out);

/*
 * The regions with other categories: new_bits[k] where they were old_bits[k]; those with none of
 * these are left out.
 */
int ps_relabel(const struct ps_columns *regions, const uint64_t *old_bits, const uint64_t *new_bits,
	       uint64_t labels, struct ps_columns *out);

/* How many bytes of the regions lie in each range, for the ranges that have any. */
struct ps_shares {
	uint64_t *ranges; /* indices, ascending */
	uint64_t *bytes;
	uint64_t capacity;
	uint64_t length;
	uint64_t outside; /* bytes that lie in no range */
};

int ps_shares(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	      uint64_t ranges, struct ps_shares *out);

/* Adds up pages by owner, and by owner and bit: counts has maps * PS_CATEGORY_BITS cells. */
int ps_tally(const struct ps_columns *regions, const int64_t *owner, uint64_t page_size,
	     uint64_t maps, uint64_t *pages, uint64_t *counts);

enum ps_method {
	PS_METHOD_NONE,
	PS_METHOD_PLAIN, /* nothing in the target restores it: our death in between hurts it */
	PS_METHOD_FRAME, /* a signal frame in empty pages of its own stack restores it without us */
	PS_METHOD_SLACK, /* the same, in bytes that nobody uses */
	PS_METHOD_ROP,   /* six words on its own stack do: for restart_syscall(2) */
};

enum ps_step {
	PS_STEP_NONE,
	PS_STEP_OPEN,    /* its memory or its threads could not be read */
	PS_STEP_GADGET,  /* no system call instruction where one may be used */
	PS_STEP_SECCOMP, /* its filter would see the call, and may not be suspended */
	PS_STEP_SEIZE,   /* PTRACE_SEIZE was refused */
	PS_STEP_STOP,    /* no thread stopped in time */
	PS_STEP_EXEC,    /* it runs another program by now */
	PS_STEP_ABI,     /* it runs 32-bit code, or waits in a call of another ABI */
	PS_STEP_DISPATCH, /* Syscall User Dispatch would catch the call */
	PS_STEP_FACTS,   /* a fact that decides about harm could not be read */
	PS_STEP_TABLE,   /* the thread has descriptors of its own, which cannot be reached */
	PS_STEP_CALL,    /* userfaultfd(2) failed in the target */
	PS_STEP_TAKE,    /* pidfd_getfd(2) failed */
	PS_STEP_ARCH,    /* not written for this architecture */
	PS_STEP_DONE,
};

/*
 * Takes a userfaultfd out of a live process: see shim_surgeon.c and shim_attach.c.
 *
 * A surgeon operates; begin starts it, wait returns after so many ms, or for a signal, with 1 when there
 * is nothing more to wait for, and end gives the result, and ends what still runs. -EAGAIN: the thread
 * that was tried did not stop, another turn may find one that does. -ECANCELED: it was killed, and not
 * by us.
 */
struct ps_attach {
	int32_t pid;        /* in: the process */
	int32_t timeout_ms; /* in: bound over all waits */
	uint64_t start_time; /* in: what it must have in /proc/PID/stat; 0: any */
	int32_t turn;       /* in: which of its threads is tried first */
	int32_t by_thread;  /* in: 1: by a thread of this process, which cannot be killed: Yama */
	int32_t uffd;       /* out: the descriptor, ours, close-on-exec, or -1 */
	int32_t tid;        /* out: the thread that was used */
	int32_t method;     /* out: enum ps_method */
	int32_t step;       /* out: enum ps_step, the last one tried; with an error, the one that failed */
	int32_t attempts;   /* out: threads and times tried */
	int32_t left_fd;    /* out: descriptor left in the target, or -1 */
	/*
	 * in: system calls may be made from these addresses only, unless the length is 0;
	 * out, with PS_STEP_DISPATCH: the addresses that the thread's dispatch leaves alone.
	 */
	uint64_t allowed_start;
	uint64_t allowed_length;
	uint64_t stopped_ns; /* out: how long the thread stood still, all attempts */
};

struct ps_theatre;
int ps_attach_begin(const struct ps_attach *attach, struct ps_theatre **ret);
int ps_attach_wait(struct ps_theatre *theatre, int32_t ms);
int ps_attach_end(struct ps_theatre *theatre, struct ps_attach *ret);
int ps_can_attach(void); /* 1: it is written for this architecture; 0: it is not */

/*
 * Starts argv[0] with the environment envp and the three descriptors as its stdin, stdout and
 * stderr, and leaves it stopped (SIGSTOP) before its first instruction. Returns the pid; -errno of
 * the exec if that failed.
 *
 * Nobody would wake it if we were killed now: a second child, the guard, kills it when guard->fd is
 * closed, and ends by itself when something is written there.
 */
struct ps_guard {
	int32_t fd;
	int32_t pid;
};

int ps_launch(const char *path, char *const *argv, char *const *envp, int in, int out, int err,
	      struct ps_guard *guard);

/* pagescan_watch_get() for whole 64-bit numbers: returns how many pages there are, or -errno. */
int64_t ps_watch_get(const struct pagescan_watch *watch, int reset, uint64_t start, uint64_t size,
		     uint64_t addresses, uint64_t room);
int ps_watch_reset(const struct pagescan_watch *watch, uint64_t start, uint64_t size);
/* cdef end */

#define PS_MAP_READ 1u
#define PS_MAP_WRITE 2u
#define PS_MAP_EXEC 4u
#define PS_MAP_SHARED 8u

#define PS_CATEGORY_BITS 9u

#endif
