/* SPDX-License-Identifier: MIT */
/* Shared by the files of the attach; shim_attach.c explains it. */
#ifndef PAGESCAN_ATTACH_H
#define PAGESCAN_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shim.h"

#if defined(__x86_64__)
#include <sys/user.h>

/* Instructions of the target, by address; 0: not found. */
struct gadgets {
	uint64_t syscall;     /* syscall, anywhere: enough for the plain method */
	uint64_t syscall_ret; /* syscall; ret */
	uint64_t restorer;    /* mov $15, %eax; syscall: rt_sigreturn */
	uint64_t restorer_length;
	uint64_t pop_rax;     /* pop %rax; ret */
	uint64_t pop_rdi;     /* pop %rdi; ret */
	uint64_t ret_imm[16]; /* ret $imm, by imm / PS_PAGE: skips the bytes between */
};

/* The answer to a question that decides about harm. */
enum ps_answer {
	PS_NO,
	PS_YES,
	PS_NOT_KNOWN, /* never treated as a no */
};

/* Eight bytes of the examined address space. */
struct witness {
	uint64_t address;
	uint64_t word;
};

struct surgery {
	struct ps_attach *call;
	/*
	 * Fields of the operating process: it may be killed at any instruction, so it takes no
	 * lock.
	 */
	int timer;	    /* kills it: ps_kill_me_after() */
	uint64_t killed_at; /* when the timer will; 0: it is not set */
	uint8_t *room;	    /* prepared memory, used instead of malloc */
	size_t room_left;
	/* Fields of the target. */
	int memory; /* /proc/PID/mem, read-write */
	int maps;   /* /proc/PID/maps, for PROCMAP_QUERY */
	int pagemap;
	int pidfd;
	int table; /* a pidfd for access to this thread's descriptors, or -1 */
	int own_fds; /* our own /proc/thread-self/fd, or -1 */
	uint64_t deadline;
	pid_t tid;
	struct gadgets all_gadgets; /* all that were found */
	struct gadgets gadgets;	    /* the ones that the stopped thread may use */
	unsigned long options; /* of ptrace(2), besides those of the attach */
	bool filter_counts;	    /* this user may not suspend the thread's seccomp filter */
	bool unsuitable;	    /* this thread is, and was released: try another one */
	struct witness witnesses[8]; /* to recognise it again; unused ones: address 0 */
	bool untold;	 /* its random bytes are unreadable: an exec would go unnoticed */
	bool plain_only; /* shadow stack: a return without a call would be fatal */
	uint64_t stack_start; /* of [stack]; 0: it has no [stack], or a small one */
	uint64_t slack;	      /* bytes behind an ELF's .bss: [slack, slack_end) */
	uint64_t slack_end;
	bool garbage; /* the last examined memory holds the frame of an attach that died */
	/* State of the stopped thread with which it goes on. */
	struct user_regs_struct saved;
	uint64_t mask;
	uint64_t standing_since; /* 0: it is not stopped by us */
	bool plain_standing;     /* it is, and only we can restore it */
	/* The self-restoring stack; chain is its first rsp, 0: the plain method. */
	uint64_t chain;
	bool masked; /* every signal is blocked during the calls; rop could not undo that */
	uint64_t wrote; /* [wrote, wrote_end) must be wiped */
	uint64_t wrote_end;
};

/* Room for a frame, and the name of the method with a frame there. */
struct ps_place {
	uint64_t start;
	uint64_t end;
	enum ps_method method;
};

/* One mapping of the target. */
struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	uint64_t device;
	uint64_t flags;
	const char *name; /* NULL: not asked for */
	size_t name_length;
};

/* Gets one mapping after another, until it returns a value other than 0. */
typedef int ps_visit(struct surgery *s, const struct mapping *mapping, void *context);

/* A mapping of code, and the mapping with the beginning of its file. */
struct code {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	uint64_t device;
	uint64_t head; /* 0: unknown */
	int order;     /* position in the order of the search */
	bool no_slack; /* the bytes behind its .bss are used, or this is unknown */
};

#define PS_PAGE 4096u
#define PS_ERESTARTNOHAND 514
#define PS_SYS_IO_URING_ENTER 426
#define PS_X32_BIT 0x40000000u
#define PS_STAT_SIZE 1024

/*
 * No function below may use malloc, stdio on files, or opendir. The surgeon shares its memory with its
 * caller, and a lock that it holds when it is killed would stay locked. snprintf on an array is fine.
 */
void ps_begin_surgery(struct surgery *s, struct ps_attach *call, void *room, size_t size);
int ps_operate(struct surgery *s);
int ps_operate_on_own(struct surgery *s); /* on a process that the caller traces and has stopped */
void ps_kill_me_after(struct surgery *s, uint64_t ns);
void *ps_room(struct surgery *s, size_t size); /* NULL: used up; freed at the surgeon's end */

bool ps_peek(const struct surgery *s, uint64_t address, void *ret, size_t size);
bool ps_poke(const struct surgery *s, uint64_t address, const void *data, size_t size);
size_t ps_read_file(const struct surgery *s, const char *name, void *ret, size_t size);
uint64_t ps_start_time(const struct surgery *s);
uint64_t ps_stat_field(const struct surgery *s, int number);
bool ps_is_present(const struct surgery *s, uint64_t address);

int ps_visit_mappings(struct surgery *s, ps_visit *visit, void *context);
bool ps_mapping_at(struct surgery *s, uint64_t address, struct mapping *ret, char *name, size_t room);

enum ps_answer ps_has_filter(const struct surgery *s);
enum ps_answer ps_is_worker(const struct surgery *s);
enum ps_answer ps_has_shadow_stack(const struct surgery *s);
enum ps_answer ps_leave_rseq(struct surgery *s);
enum ps_answer ps_may_call(struct surgery *s);
enum ps_answer ps_is_in_foreign_call(const struct surgery *s);

void ps_start_over(struct surgery *s);
int ps_rank_of_call(const struct surgery *s);
pid_t ps_living_thread(struct surgery *s);
int ps_list_threads(struct surgery *s, pid_t *tids, int room);

int ps_open_table(struct surgery *s);
void ps_close_table(struct surgery *s);
int ps_take(struct surgery *s, int64_t there);
enum ps_answer ps_is_still_there(const struct surgery *s, int64_t there);

int ps_find_gadgets(struct surgery *s);
void ps_forget_gadgets(struct surgery *s);

void ps_find_places(struct surgery *s, const struct code *code, size_t count);
bool ps_place_frame(struct surgery *s, uint64_t length, struct ps_place *ret);
bool ps_own_stack(struct surgery *s, struct mapping *ret);
bool ps_is_free_stack(struct surgery *s, const struct mapping *stack, uint64_t low, uint64_t end);
void ps_write_mark(const struct surgery *s, void *at, uint64_t chain);
void ps_wipe(const struct surgery *s, uint64_t start, uint64_t end);

bool ps_build_chain(struct surgery *s);
void ps_clear_chain(struct surgery *s);
#endif

/*
 * A test build can die at each step of the attach; in other builds a step does nothing.
 * PAGESCAN_KILL_AT=n: SIGKILL itself at the n-th step.
 */
#ifdef PS_FAULT
void ps_fault_step(const char *name);
#define PS_FAULT_STEP(name) ps_fault_step(name)
#else
#define PS_FAULT_STEP(name) ((void)0)
#endif

#endif
