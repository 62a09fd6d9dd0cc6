/* SPDX-License-Identifier: MIT */
/*
 * The shim: system calls, and the loops that run once per page, region or mapping.
 *
 * Every function returns >= 0, or -errno. None is void, because cffi would then use Python's None,
 * an object, even where a C program opens the file without Python. No memory outlives a call;
 * nothing is formatted or decided here. Addresses are bytes, intervals half-open.
 */
#ifndef PAGESCAN_SHIM_H
#define PAGESCAN_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "include/pagescan_writewatch.h"
#include "uapi.h"

/* The cdef of _build.py declares the lines between the two markers to Python, word for word. */
/* cdef begin */
/* The masks of PAGEMAP_SCAN(2const), over PAGE_IS_* bits. */
struct ps_masks {
	uint64_t mask;
	uint64_t inverted;
	uint64_t anyof;
	uint64_t returned;
};

/*
 * The masks for one kind of mapping, and how its bits are read there: the rules are made
 * in Python. A page is written when it has the bit, all of written_all, one of written_any (0: no such
 * condition) and none of written_none.
 */
struct ps_rule {
	struct ps_masks kernel_masks; /* the masks for the kernel */
	struct ps_masks result_masks; /* the masks applied to the bits as this rule reads them */
	uint64_t protect;     /* 1: write-protect the matching pages, in the same step */
	uint64_t first_page;  /* 1: stop at the first matching page of each range */
	uint64_t whole_range; /* 1: make no call: the range is the answer */
	uint64_t align;       /* slices end at multiples of this: whole huge pages */
	uint64_t written_all;
	uint64_t written_any;
	uint64_t written_none;
	/* an entry with none of these is empty and counts as written; 0: off */
	uint64_t empty_without;
	uint64_t marker_bits;	/* together with one of these, SWAPPED is a marker and not swap */
	uint64_t ignored_bits;	/* bits without a meaning here */
	uint64_t label;		/* bits set in every row of the answer */
	/* 1: the answer may contain additional pages: it is scanned again */
	uint64_t candidates;
	uint64_t skip_holes;	/* 1: only present or swapped pages matter, so skip long holes */
	uint64_t check_markers; /* 1: SWAPPED may be a marker: ask pagemap; never with `protect` */
};

struct ps_pace {
	uint64_t max_stall_ns; /* no call should hold the target's mmap lock longer */
	uint64_t pause_ns;     /* how long the lock is left alone after it was held */
	uint64_t slice;        /* bytes of the next call; in and out, adapts to max_stall_ns */
	uint64_t slice_min;    /* lower limit of slice */
	uint64_t slice_max;    /* upper limit of the first dense slice after a long hole */
	uint64_t held_ns;      /* in and out: held since the last pause */
	uint64_t *until;       /* the end of the common pause of several threads; or NULL */
};

struct ps_cost {
	uint64_t scan_ns;
	uint64_t max_wait_ns; /* the longest single call */
	uint64_t ioctls;
	uint64_t pages_walked;
};

struct ps_cursor {
	uint64_t range; /* index of the current range */
	uint64_t at;    /* address to continue from; 0: the start of that range */
	uint64_t left;  /* pages still to be returned; all: UINT64_MAX */
};

struct ps_columns {
	uint64_t *start;
	uint64_t *end;
	uint64_t *categories;
	uint64_t capacity;
	uint64_t length;
};

/* Calls that protected memory, each with the clock (CLOCK_MONOTONIC) before and after it. */
struct ps_windows {
	uint64_t *start; /* NULL: nobody asks */
	uint64_t *end;
	uint64_t *before;
	uint64_t *after;
	uint64_t capacity;
	uint64_t length;
};

/* A part of a scan: ascending ranges, each with the index of its rule, and the result. */
struct ps_part {
	const uint64_t *starts;
	const uint64_t *ends;
	const uint64_t *which;
	uint64_t ranges;
	struct ps_cursor cursor;
	struct ps_columns out;
	struct ps_windows windows;
	int64_t state; /* 1: not done; 0: done; -errno: failed at the cursor */
};

struct ps_job {
	int32_t pagemap;
	uint32_t threads;  /* limit of threads */
	uint64_t worth_ns; /* used if the remaining work takes longer than this */
	struct ps_part *parts;
	uint64_t count;
	const struct ps_rule *rules;
	/* neighbours in a range, this close and with equal categories, become one */
	uint64_t join_gap;
	uint64_t max_pages; /* per part */
	struct ps_pace pace;
	struct ps_cost cost;
	uint64_t regions; /* out: the sum over all parts */
	uint64_t last_ns; /* time of the last run; 0: no run yet */
};

/* Restarts: nothing scanned, nothing found. */
int ps_scan_begin(struct ps_job *job);
/*
 * Goes on with the parts that are not done, and appends what it finds to their out.
 * 0: all done. 1: an out or its windows are full, or it is time to look for signals: call again. -errno: one failed.
 */
int ps_scan(struct ps_job *job);

int ps_uffd_open(void); /* a userfaultfd of this process */
int ps_uffd_api(int uffd, uint64_t features);
int ps_uffd_register(int uffd, uint64_t start, uint64_t end);
/* The same; the call is added to cost. */
int ps_uffd_register_timed(int uffd, uint64_t start, uint64_t end, struct ps_cost *cost);
/* Memory to register: [start, end), a part of the mapping [low, high) of /proc/PID/maps. */
struct ps_listed {
	uint64_t start;
	uint64_t end;
	uint64_t low;
	uint64_t high;
	uint64_t inode;
	uint64_t shared; /* 0 or 1 */
};

/*
 * Registers parts of mappings, from the one at *done on; the target may have changed a mapping since
 * maps was read. So the kernel is asked for it right before. If it has changed, it is registered
 * whole: with a border in it, mremap(2) of it would fail. maps: the open file, or -1: do not ask;
 * before Linux 6.11 it cannot be asked. 0: all done. 1: it is time to look for signals: call again.
 * -errno: the part at *done cannot be registered. -EINVAL: no such memory is there any more.
 */
int ps_uffd_register_parts(int uffd, int maps, const struct ps_listed *parts, uint64_t count,
			   struct ps_pace *pace, uint64_t *done, struct ps_cost *cost);
/* 1: the page at start is in a registered mapping, in the address space of pagemap. */
int ps_uffd_is_registered(int pagemap, uint64_t start);
int ps_uffd_unregister(int uffd, uint64_t start, uint64_t end);
/*
 * Whether a userfaultfd belongs to the address space that pagemap shows: 1 or 0. The mapping at
 * [start, end), a whole one, is registered for a moment. -EBUSY: another userfaultfd has it.
 */
int ps_uffd_is_of(int uffd, int pagemap, uint64_t start, uint64_t end, struct ps_cost *cost);
/*
 * Unregisters [start, end) of one mapping in slices; done: where it stopped. 1: it is time to look
 * for signals, then continue from there. The slices add a border while they last; afterwards the
 * mapping merges again.
 */
int ps_uffd_unregister_slices(int uffd, int pagemap, uint64_t start, uint64_t end, uint64_t align,
			      struct ps_pace *pace, uint64_t *done, struct ps_cost *cost);
/* Write-protects [start, end) and its holes (by markers), or lifts that; done: where it stopped. */
int ps_uffd_protect(int uffd, uint64_t start, uint64_t end, int protect, uint64_t align,
		    struct ps_pace *pace, uint64_t *done, struct ps_cost *cost);

/*
 * Split huge pages of one mapping: [start, end), whole ones. A huge page is put back if all its
 * pages are present and not shared.
 */
struct ps_collapse {
	int32_t pagemap;
	int32_t pidfd;	 /* the target's; -1: this process */
	int32_t file;	 /* the file of shared memory, -1: private memory */
	int32_t refused; /* in and out: CAP_SYS_NICE is missing, so no other call is tried */
	uint64_t offset; /* offset of start in the file */
	uint64_t size;	 /* bytes of a huge page */
	uint64_t start;
	uint64_t end;
	uint64_t at;	   /* in and out: where to continue */
	uint64_t restored; /* in and out, as the next two: bytes that are huge again */
	uint64_t lost;	   /* bytes that are populated, and not in a huge page */
	uint64_t denied;   /* the part of them that only a refusal prevented */
};

/* 0: done. 1: it is time to look for signals, call again. -errno: the address space is gone. */
int ps_collapse(struct ps_collapse *job, struct ps_pace *pace, struct ps_cost *cost);

/*
 * Counts the pages of a part of a file, by cachestat(2) (6.5): those in memory, and those that were
 * evicted. For a file in shared memory the latter are on swap.
 */
int ps_file_pages(int file, uint64_t offset, uint64_t size, uint64_t *in_memory, uint64_t *elsewhere);

/* The whole, aligned units of regions without any of these categories; out has as many rows. */
int ps_whole_units(const struct ps_columns *regions, uint64_t unit, uint64_t left_out,
		   struct ps_columns *out);

/*
 * Calls that hold the mmap lock are timed here, because a caller in Python may have to wait for the
 * interpreter before it could look at a clock.
 *
 * Reads maps or smaps of a process from where it stands into text, at most `slice` bytes per call;
 * length: the bytes read. 0: until its end. 1: the room is used up, or it is time to look for
 * signals. Before 6.17 each read of maps holds the lock. pace: where to pause; or NULL.
 */
int ps_read_slices(int file, char *text, uint64_t room, uint64_t slice, struct ps_pace *pace,
		   uint64_t *length, struct ps_cost *cost);
/* Reads /proc/PID/mem; returns the bytes read, or -errno. */
int64_t ps_read_memory(int memory, char *to, uint64_t size, uint64_t start, struct ps_cost *cost);

/* One row per line of /proc/PID/maps; names are (offset, length) into the text. */
struct ps_maps {
	uint64_t *start;
	uint64_t *end;
	uint64_t *offset;
	uint64_t *inode;
	uint64_t *device; /* major << 32 | minor */
	uint64_t *flags;  /* PS_MAP_* */
	uint64_t *name_at;
	uint64_t *name_length;
	uint64_t *page_size; /* 0: not asked, the usual size */
	uint64_t capacity;
	uint64_t length;
	struct ps_cost cost; /* in and out: of PROCMAP_QUERY */
};

/*
 * Fills as many rows as fit and returns 0, or 1 if the text has more lines. maps is an open
 * /proc/PID/maps for PROCMAP_QUERY, or -1; -ENOTTY: this kernel does not have it, and every
 * page_size is 0.
 */
int ps_maps_parse(const char *text, uint64_t length, int maps, struct ps_maps *out);
/* 1: a mapping begins at the address; 0: none. -ENOENT: nothing is above it; -ENOTTY: before 6.11. */
int ps_mapping_begins(int maps, uint64_t address, struct ps_cost *cost);

/*
 * The algebra of region lists: see shim_regions.c. Ranges are ascending and disjoint, as mappings
 * are. 1: the room was too small; out->length rows are enough.
 *
 * join cuts regions at the borders of ranges; owner is the index of the range, -1 outside all of
 * them.
 */
int ps_join(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	    uint64_t ranges, struct ps_columns *out, int64_t *owner);
/* The parts of regions inside any range, and the parts outside all of them. */
int ps_inside(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	      uint64_t ranges, struct ps_columns *out);
int ps_outside(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	       uint64_t ranges, struct ps_columns *out);
/*
 * Lays regions over others: an overlap gets the upper categories. `outside`: also keep the rest of
 * `over`.
 */
int ps_overlay(const struct ps_columns *under, const struct ps_columns *over, uint64_t outside,
	       struct ps_columns *out);

/*
 * The regions with other categories: new_bits[k] in place of old_bits[k]; regions with none of the
 * old ones are left out.
 */
int ps_relabel(const struct ps_columns *regions, const uint64_t *old_bits, const uint64_t *new_bits,
	       uint64_t labels, struct ps_columns *out);

/* The bytes of the regions in each range, for ranges that have any. */
struct ps_shares {
	uint64_t *ranges; /* indices, ascending */
	uint64_t *bytes;
	uint64_t capacity;
	uint64_t length;
	uint64_t outside; /* bytes outside all ranges */
};

int ps_shares(const struct ps_columns *regions, const uint64_t *starts, const uint64_t *ends,
	      uint64_t ranges, struct ps_shares *out);

/* Adds up pages by owner, and by owner and bit: counts has maps * PS_CATEGORY_BITS cells. */
int ps_tally(const struct ps_columns *regions, const int64_t *owner, uint64_t page_size,
	     uint64_t maps, uint64_t *pages, uint64_t *counts);

enum ps_method {
	PS_METHOD_NONE,
	PS_METHOD_PLAIN, /* only the surgeon restores it: its death in between does harm */
	PS_METHOD_FRAME, /* a signal frame in empty pages of its own stack restores it */
	PS_METHOD_SLACK, /* the same, in unused bytes */
	PS_METHOD_ROP,   /* six words on its own stack restore it: for restart_syscall(2) */
};

enum ps_step {
	PS_STEP_NONE,
	PS_STEP_OPEN,    /* its memory or its threads could not be read */
	PS_STEP_GADGET,  /* no usable system call instruction */
	PS_STEP_SECCOMP, /* its filter would see the call, and cannot be suspended */
	PS_STEP_SEIZE,   /* PTRACE_SEIZE was refused */
	PS_STEP_STOP,    /* no thread stopped in time */
	PS_STEP_EXEC,    /* it runs another program now */
	PS_STEP_ABI,     /* it runs 32-bit code, or waits in a call of another ABI */
	PS_STEP_DISPATCH, /* Syscall User Dispatch would catch the call */
	PS_STEP_FACTS,   /* a fact that decides about harm could not be read */
	PS_STEP_TABLE,   /* the thread's own descriptor table cannot be reached */
	PS_STEP_CALL,    /* userfaultfd(2) failed in the target */
	PS_STEP_TAKE,    /* pidfd_getfd(2) failed */
	PS_STEP_ARCH,    /* not written for this architecture */
	PS_STEP_DONE,
};

/*
 * Takes a userfaultfd out of a live process: see shim_surgeon.c and shim_attach.c.
 *
 * A surgeon does the work. begin starts it. wait returns after the given ms, or for a signal, with
 * 1 when the surgeon is done. end returns the result, and ends whatever still runs. -EAGAIN: the
 * thread did not stop; another turn may find one that does. -ECANCELED: the surgeon was killed, but
 * not by its caller.
 */
struct ps_attach {
	int32_t pid;        /* in: the process */
	int32_t timeout_ms; /* in: limit of all waits together */
	uint64_t start_time; /* in: its required start time in /proc/PID/stat; 0: any */
	int32_t turn;       /* in: the number of the thread to try first */
	/* in: 1: a thread of this process does it, which cannot be killed: for Yama */
	int32_t by_thread;
	int32_t uffd;       /* out: the descriptor here, close-on-exec, or -1 */
	int32_t tid;        /* out: the used thread */
	int32_t method;     /* out: enum ps_method */
	int32_t step;       /* out: enum ps_step, the last one tried; with an error, the one that failed */
	int32_t attempts;   /* out: number of tries, over all threads */
	int32_t left_fd;    /* out: descriptor left in the target, or -1 */
	int32_t killed_by;  /* out: with -ECANCELED: the signal */
	/*
	 * in: system calls may be made only from these addresses, unless the length is 0; out, with
	 * PS_STEP_DISPATCH: the addresses that the thread's dispatch exempts.
	 */
	uint64_t allowed_start;
	uint64_t allowed_length;
	uint64_t stopped_ns; /* out: how long threads stood still, over all tries */
	uint64_t features; /* in: more features of the userfaultfd than tracking needs */
};

struct ps_theatre;
int ps_attach_begin(const struct ps_attach *attach, struct ps_theatre **ret);
int ps_attach_wait(struct ps_theatre *theatre, int32_t ms);
int ps_attach_end(struct ps_theatre *theatre, struct ps_attach *ret);
int ps_can_attach(void); /* 1: the attach exists for this architecture; 0: it does not */

/*
 * Starts argv[0] with the environment envp and the three descriptors as its stdin, stdout and
 * stderr, and its tracer, which holds it before its first instruction: see shim_tracer.c. Both are
 * children of the caller. -errno: of the exec, or why it cannot be traced.
 *
 * The program begins with ps_tracee_go(). If the caller or the tracer ends before that, the program is
 * killed; if the tracer ends later, the program goes on.
 */
struct ps_tracee {
	int32_t pid;
	int32_t tracer; /* its pid */
	int32_t socket; /* readable: ps_tracee_event() has an event */
};

enum ps_event {
	PS_EVENT_NONE,
	PS_EVENT_EXEC, /* it stands before the first instruction of another program */
	PS_EVENT_EXIT, /* its last thread stands at its end, and the memory still exists */
	PS_EVENT_ATTACHED, /* the answer to ps_tracee_attach() */
	PS_EVENT_LOST, /* the tracer has ended: the program goes on without one */
};

int ps_launch(const char *path, char *const *argv, char *const *envp, int in, int out, int err,
	      struct ps_tracee *ret);
/* Asks for an attach to the standing program: ps_attach_begin() would find it traced. */
int ps_tracee_attach(int socket, const struct ps_attach *call);
int ps_tracee_stay(int socket); /* asks for more time: a program is held for 10 s only, then for 60 */
int ps_tracee_go(int socket);   /* lets the standing program go on */
/* Waits for an event; PS_EVENT_ATTACHED: the other arguments are the result of the attach. */
int ps_tracee_event(int socket, int32_t ms, struct ps_attach *ret, int32_t *error);

/*
 * Keeps the last output of a program, at most 1 MiB, in a process: see shim_output.c. The program
 * writes into `input`, which the caller closes when the program has it.
 */
struct ps_output {
	int32_t pid; /* a child of the caller, which ends with the last writer */
	int32_t input;
	int32_t control;
};

int ps_keep_output(int out, struct ps_output *ret);
int ps_output_size(int control, uint64_t *kept, uint64_t *dropped); /* bytes there are to print */
int ps_output_print(int control); /* prints them into `out`; what comes later follows at once */

/* pagescan_watch_get() for whole 64-bit numbers: returns how many pages there are, or -errno. */
int64_t ps_watch_get(const struct pagescan_watch *watch, int reset, uint64_t start, uint64_t size,
		     uint64_t addresses, uint64_t room);
int ps_watch_reset(const struct pagescan_watch *watch, uint64_t start, uint64_t size);

/*
 * Looks up a file by its name below a root: no link leads out of it, and with `follow` 0 none is
 * followed. Returns an O_PATH descriptor: nothing has been opened yet.
 */
int ps_open_in_root(int root, const char *name, int follow);

/* Page-fault samples, as columns: pid << 32 | tid, when (CLOCK_MONOTONIC), the code, the page. */
struct ps_faults {
	uint64_t *thread;
	uint64_t *time;
	uint64_t *ip;
	uint64_t *address;
	uint64_t *origin; /* the caller's number for its chain; moves with the sample */
	uint64_t *chain;  /* PS_CHAIN per sample: the code, return addresses, 0: no more; or NULL */
	uint64_t *stack;  /* PS_STACK_ROW per sample: see PS_STACK_WORDS; or NULL */
	int64_t capacity;
	int64_t length;
	/*
	 * rows of type (COMM: an exec), time, pid, parent, tid, thread that made it; with
	 * COMM and PS_TASK_NAMED the new name stands in place of the parent and the maker
	 */
	uint64_t *tasks;
	int64_t task_capacity;
	int64_t task_length;
	uint64_t lost;
};

/*
 * Opens the page-fault events of a thread on one processor, with those of the threads that it makes,
 * and with PS_FAULTS_CHILDREN of the processes; with PS_FAULTS_USER only of user mode; with PS_FAULTS_CALLERS samples have a chain;
 * with PS_FAULTS_STACK the registers and the top of the stack; with PS_FAULTS_LOST ps_faults_lost tells
 * how many samples the ring had no room for.
 */
int ps_faults_open(int tid, int cpu, uint32_t flags, uint64_t period);
int64_t ps_faults_lost(int fd);
int ps_faults_share(int fd, int ring); /* the samples of fd go to the ring of another event */
int ps_faults_stop(int fd);	       /* no more samples; the ring stays */
/* Appends what a ring of `size` bytes holds: 1, if the columns were full before it was empty. */
int ps_faults_drain(void *ring, uint64_t size, struct ps_faults *out);

/*
 * Appends the samples of one process to `to`, and removes them from `from`; chains stay behind.
 * -ENOBUFS if there is no room: nothing has changed.
 */
int ps_faults_move(struct ps_faults *from, uint32_t pid, struct ps_faults *to);

/*
 * The rules that lead from a frame of the stack to its caller's, by address of code: a hash table
 * with open addressing, whose size is a power of two; key 0: free. A rule has PS_RULE numbers: what it
 * is (PS_RULE_*), the register (its place in a row of a stack) and the offset that give the frame's
 * upper end, where below that end bx, bp and r12 to r15 are saved (0: they are not), and of the
 * interpreter up to PS_HOMES places where its current instruction may be: above 0 a register, as its
 * place plus 1, below 0 an offset from the upper end, 0: none.
 */
struct ps_frame_rules {
	const uint64_t *key;
	const int32_t *rule;
	uint64_t size;
};

/*
 * Walks the stacks of the samples of a process up to the first frame of the interpreter. `out` gets
 * PS_WALK numbers per sample: what was found (PS_WALK_*), the code that it is about, the return
 * address of the interpreter's frame, and what each place of the instruction has; 0: not known.
 * Returns how many samples met code without a rule.
 */
int64_t ps_stacks_walk(const struct ps_faults *samples, uint32_t pid, const struct ps_frame_rules *rules,
		       uint64_t *out);

/* Runs of written pages with one writer, as columns; thread 0: no sample tells who it was. */
struct ps_writers {
	uint64_t *start;
	uint64_t *end;
	uint64_t *ip;
	uint64_t *thread;
	uint64_t *origin;
	uint64_t *region; /* index of the written region */
	uint64_t capacity;
	uint64_t length;
	uint64_t attributed; /* pages */
	uint64_t ambiguous;  /* pages with samples of different code */
};

/*
 * Finds the writer of each page of a look among the samples. The window of a page is the call that
 * protected it, or else [since, until]. The writer is the last sample before the window, or else the
 * first one in it. `units` says how many bytes one fault populates, per region. Leaves in `samples`
 * those that belong to a later look: samples in a window, and those that joined nothing and are not
 * older than `grace` (their fault may not be over).
 */
int ps_writers_join(const struct ps_columns *written, const uint64_t *units,
		    const struct ps_windows *windows, uint64_t since, uint64_t until, uint64_t grace,
		    struct ps_faults *samples, struct ps_writers *out);

/*
 * A deadline: SIGKILL for this process, by a kernel timer, also if it is stopped or frozen then. make
 * returns the timer; set moves the deadline to `ms` milliseconds from now.
 */
int ps_deadline_make(void);
int ps_deadline_set(int timer, uint32_t ms);

int ps_same_memory(int pid, int other); /* 1: two processes have one address space (kcmp) */

/* One side of a fork: the samples of a process from one moment to another. */
struct ps_side {
	uint64_t pid;
	uint64_t since;
	uint64_t until;
};

/*
 * Says of each sample what it was to one side: not of it; a page that was not shared; the first
 * write to a shared page, for which its bit is set; a later one. `first_page` is the index of the
 * first page of each shared region. Returns how many bits were set.
 */
int64_t ps_copies_mark(const struct ps_columns *shared, const uint64_t *first_page,
		       const struct ps_faults *samples, const struct ps_side *side, uint8_t *bitmap,
		       uint8_t *verdicts);

struct ps_comparison {
	uint64_t shared;
	uint64_t copied;
	uint64_t unknown; /* on swap, or gone since */
};

/* Compares two processes page by page; `shared` gets the regions that are still one memory. */
int ps_copies_compare(int parent, int child, const struct ps_columns *both, struct ps_columns *shared,
		      struct ps_comparison *counts);

/* Counts the copies of some processes: at each page, how many different ones they have, less one. */
int ps_copies_count(const int *pagemaps, uint32_t count, const struct ps_columns *regions,
		    uint64_t *copies);
/*
 * The packed form of regions: see shim_recording.c. Returns its length; if that is more than the
 * capacity, the form is not complete, and the length is room enough for another call.
 */
int64_t ps_pack(const struct ps_columns *regions, uint64_t page_size, uint8_t *bytes,
		uint64_t capacity);
/* Reads that form. 1: out has too few rows, out->length are enough. -EBADMSG: it is damaged. */
int ps_unpack(const uint8_t *bytes, uint64_t length, uint64_t page_size, struct ps_columns *out);

/* A look in that form, and its region that was read last, in pages. */
struct ps_packed {
	const uint8_t *bytes;
	uint64_t length;
	uint64_t at;
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

/* Where the next region of a look begins. */
struct ps_head {
	uint64_t start;
	uint64_t look;
};

/*
 * Joins looks in that form into one, in that form: a page is in it if one of the looks has it. With
 * units of several pages a region is one unit or several alike, and its categories are the pages of
 * each that are written. The looks lie one behind the other in `bytes`, to their `ends`; `packed`
 * and `heap` have room for one element per look. Returns the length as ps_pack does, or -EBADMSG.
 */
int64_t ps_join_packed(const uint8_t *bytes, const uint64_t *ends, uint64_t looks, uint64_t unit,
		       struct ps_packed *packed, struct ps_head *heap, uint8_t *out,
		       uint64_t capacity, uint64_t *regions);

/* Many looks: the parts of their regions in some ranges, or all of them, in pages. */
struct ps_looks {
	uint64_t *starts; /* of the parts, those of one look behind those of the one before */
	uint64_t *stops;
	uint64_t *ends; /* of each look: how many parts there are up to its end */
	uint64_t count;
	uint64_t page_size;
};

/*
 * Reads looks in that form, which lie one behind the other in `bytes`, to their `ends`. A look that
 * is damaged, or has too many pages, has no part, and its byte in `damaged` becomes 1. With `ranges`
 * there are only the parts in these, which ascend and are disjoint; `low` NULL: everything.
 * 1: there are more than `capacity`; `length` is how many.
 */
int ps_read_looks(const uint8_t *bytes, const uint64_t *ends, const uint64_t *low,
		  const uint64_t *high, uint64_t ranges, const struct ps_looks *out,
		  uint64_t capacity, uint64_t *length, uint8_t *damaged);

struct ps_page {
	uint32_t first; /* the first look that found it written; looks are numbered from 1 */
	uint32_t last;	/* the last one; 0: none so far */
	uint32_t count; /* how many did */
};

/* Counts per page. The pages are in aligned blocks of memory; a block is found by its number. */
struct ps_pages {
	const uint64_t *blocks; /* their numbers, ascending */
	const uint32_t *places; /* where the pages of each are: the place times `unit` */
	uint64_t count;
	uint64_t unit; /* pages per block */
	struct ps_page *pages;
	uint64_t *gaps; /* by N: how often a page was not found by N looks, and then again; or NULL */
};

/*
 * Writes the numbers of the blocks that looks have pages in and that have no place yet: a block may
 * be there several times. 1: there are more than `capacity`; `length` is how many.
 */
int ps_page_blocks(const struct ps_looks *looks, const struct ps_pages *pages, uint64_t *blocks,
		   uint64_t capacity, uint64_t *length);
/*
 * Counts looks, of which the first one has a number, from look `from` on. The pages that no look
 * after `since` has found before are added to `fresh`. Returns the look that has a page in a block
 * without a place: with one, the caller goes on there. Else returns the number of looks.
 */
int64_t ps_stamp(const struct ps_looks *looks, const struct ps_pages *pages, uint64_t from,
		 uint32_t number, uint32_t since, uint64_t *fresh);
/* Sets the bit of each page of looks, from look `from` on; returns as ps_stamp does. */
int64_t ps_mark(const struct ps_looks *looks, const struct ps_pages *pages, uint64_t from,
		uint64_t *bits);
/* The pages whose bits are set, as regions. 1: out has too few rows. */
int ps_marked(const struct ps_pages *pages, const uint64_t *bits, uint64_t page_size,
	      struct ps_columns *out);
/*
 * The pages as regions. The category is 1 for pages that one look has found, 4 for those that more
 * than `percent` of the looks since their first have found, 2 for others. 1: out has too few rows.
 */
int ps_page_classes(const struct ps_pages *pages, uint64_t page_size, uint32_t looks,
		    uint32_t percent, struct ps_columns *out);
/* Adds to `stretches`, by N, the pages that the last N looks did not find; counts those found. */
int ps_page_ends(const struct ps_pages *pages, uint32_t looks, uint64_t *stretches,
		 uint64_t *found);
/* Adds the bytes that looks have in each of some ranges; `first` to `last` grow to hold them. */
int ps_look_shares(const struct ps_looks *looks, const uint64_t *low, const uint64_t *high,
		   uint64_t ranges, uint64_t *bytes, uint64_t *first, uint64_t *last);

/* As PyObjectArenaAllocator of Python. */
struct ps_arena_calls {
	void *ctx;
	void *(*alloc)(void *ctx, size_t size);
	void (*release)(void *ctx, void *arena, size_t size);
};
struct ps_arenas {
	void *kept; /* freed arenas, each with the address of the next */
	void *ctx;
	void *(*alloc)(void *ctx, size_t size);
	void (*release)(void *ctx, void *arena, size_t size);
	size_t size; /* of each arena */
};
/*
 * Replaces the calls of an allocator by those that keep what is freed. Like all functions here it
 * returns a number: one that returns void would make the library refer to data of Python, and a C
 * program could not load it any more.
 */
int ps_arenas_begin(struct ps_arenas *arenas, struct ps_arena_calls *calls);
/* Frees what was kept; the allocator must be the earlier one again. */
int ps_arenas_end(struct ps_arenas *arenas);
/* Whether malloc keeps what is freed; it does nothing where malloc is not glibc's. */
int ps_malloc_keep(int keep);
/* cdef end */

#define PS_FAULTS_CHILDREN 1u
#define PS_FAULTS_USER 2u
#define PS_FAULTS_LOST 4u
#define PS_FAULTS_CALLERS 8u
#define PS_CHAIN 16
#define PS_FAULTS_STACK 16u
#define PS_STACK_WORDS 256 /* a row of a stack: 8 registers, how many words follow, the words */
#define PS_STACK_ROW 265
#define PS_HOMES 3
#define PS_RULE 12
#define PS_RULE_END 0
#define PS_RULE_FRAME 1
#define PS_RULE_INTERPRETER 2
#define PS_WALK 6
#define PS_WALK_NOTHING 0
#define PS_WALK_NO_RULE 1
#define PS_WALK_FOUND 2
#define PS_TASK_NAMED 259u

#define PS_NOT_OF_SIDE 0
#define PS_COPIED 1
#define PS_NEW_PAGE 2
#define PS_COPIED_BEFORE 3

#define PS_MAP_READ 1u
#define PS_MAP_WRITE 2u
#define PS_MAP_EXEC 4u
#define PS_MAP_SHARED 8u

/* Of looks that are joined: no address of a page has a higher number. */
#define PS_MOST_PAGES (UINT64_MAX >> 12)

/* As CATEGORY_BITS in types.py. */
#define PS_CATEGORY_BITS 16u

#endif
