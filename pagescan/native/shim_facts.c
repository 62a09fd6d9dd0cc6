/* SPDX-License-Identifier: MIT */
/*
 * Facts about a thread that decide about harm. Each is yes, no or unknown: a fact that could not be
 * read completely is unknown, and is never treated as a no.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
#ifndef PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211
#endif
#define NT_X86_SHADOW_STACK 0x204
#define DISPATCH_ON 1u
#define SELECTOR_ALLOWS 0
#define PF_IO_WORKER 0x10u
#define PF_USER_WORKER 0x4000u

/*
 * A line of status, without its end if it is longer than this: only the lines of the groups and of
 * the sets of processors and nodes are. The name comes first, and the kernel escapes newlines in
 * it.
 */
struct line {
	char text[128];
	size_t length;
};

/* Reads all of status; its length depends on the groups of the user. */
enum ps_answer ps_has_filter(const struct surgery *s)
{
	enum ps_answer answer = PS_NOT_KNOWN;
	struct line line = {.length = 0};
	char path[64], part[4096];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", s->call->pid, s->tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return PS_NOT_KNOWN;
	while (answer == PS_NOT_KNOWN && (got = read(fd, part, sizeof(part))) > 0) {
		for (ssize_t i = 0; i < got && answer == PS_NOT_KNOWN; i++) {
			if (part[i] != '\n') {
				if (line.length < sizeof(line.text) - 1)
					line.text[line.length++] = part[i];
				continue;
			}
			line.text[line.length] = 0;
			line.length = 0;
			if (!strncmp(line.text, "Seccomp:", 8))
				answer = strtol(line.text + 8, NULL, 10) ? PS_YES : PS_NO;
			else if (!strncmp(line.text, "nonvoluntary_ctxt_switches:", 27))
				answer = PS_NO; /* later lines come: this kernel has no seccomp */
		}
	}
	close(fd);
	return answer;
}

/* With one, a return without a call is a fault: the chain consists of them. */
enum ps_answer ps_has_shadow_stack(const struct surgery *s)
{
	uint64_t pointer;
	struct iovec io = {&pointer, sizeof(pointer)};

	if (ptrace(PTRACE_GETREGSET, s->tid, (void *)NT_X86_SHADOW_STACK, &io) == 0)
		return PS_YES;
	/* ENODEV: it has none; EINVAL: this kernel does not support them. */
	return errno == ENODEV || errno == EINVAL ? PS_NO : PS_NOT_KNOWN;
}

/*
 * Whether it is a kernel thread that only looks like the target's: a worker of io_uring or vhost.
 * It stops, and makes no system call of the program's.
 */
enum ps_answer ps_is_worker(const struct surgery *s)
{
	char text[512], *at;
	unsigned flags;

	text[ps_read_file(s, "stat", text, sizeof(text) - 1)] = 0;
	at = strrchr(text, ')'); /* the name may contain any character */
	if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		return PS_NOT_KNOWN;
	return flags & (PF_IO_WORKER | PF_USER_WORKER) ? PS_YES : PS_NO;
}

/* A thread must not return into a restartable sequence: the kernel would not notice. */
enum ps_answer ps_leave_rseq(struct surgery *s)
{
	struct {
		uint64_t pointer;
		uint32_t size, signature, flags, pad;
	} mapping;
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} sequence;
	uint64_t at;

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, s->tid, (void *)sizeof(mapping), &mapping) <= 0)
		/* not supported by this kernel */
		return errno == EIO || errno == EINVAL ? PS_NO : PS_NOT_KNOWN;
	if (!mapping.pointer)
		return PS_NO;
	if (!ps_peek(s, mapping.pointer + 8, &at, sizeof(at)))
		return PS_NOT_KNOWN;
	if (!at)
		return PS_NO;
	if (!ps_peek(s, at, &sequence, sizeof(sequence)))
		return PS_NOT_KNOWN;
	if (s->saved.rip - sequence.start >= sequence.length)
		return PS_NO;
	s->saved.rip = sequence.abort;
	return PS_YES;
}

static uint64_t within(const struct ps_attach *call, uint64_t instruction, uint64_t behind)
{
	return instruction + behind - call->allowed_start < call->allowed_length ? instruction : 0;
}

/*
 * Syscall User Dispatch turns calls into SIGSYS while its selector says so, except calls from one
 * range of addresses. Removes the gadgets that the thread may not use now, and tells whether any
 * system call is left. The range is returned, so that gadgets can be searched in it.
 */
enum ps_answer ps_may_call(struct surgery *s)
{
	struct {
		uint64_t mode, selector, start, length;
	} config;
	struct gadgets *g = &s->gadgets;
	char selector;

	*g = s->all_gadgets;
	if (ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, s->tid, (void *)sizeof(config),
		   &config) < 0)
		return PS_NOT_KNOWN;
	if (config.mode != DISPATCH_ON)
		return PS_YES;
	if (config.selector) {
		if (!ps_peek(s, config.selector, &selector, 1))
			return PS_NOT_KNOWN;
		if (selector == SELECTOR_ALLOWS)
			return PS_YES;
	}
	s->call->allowed_start = config.start;
	s->call->allowed_length = config.length;
	g->syscall = within(s->call, g->syscall, 2);
	g->syscall_ret = within(s->call, g->syscall_ret, 2);
	g->restorer = within(s->call, g->restorer, g->restorer_length);
	if (!g->syscall)
		g->syscall = g->syscall_ret;
	return g->syscall ? PS_YES : PS_NO;
}

/*
 * Whether the thread waits in a call of another ABI, x32 or int $0x80, or was about to make one:
 * the numbers of its calls differ, and so does its restart call.
 */
enum ps_answer ps_is_in_foreign_call(const struct surgery *s)
{
	const struct user_regs_struct *regs = &s->saved;
	bool ended = (int64_t)regs->orig_rax >= 0 && (int64_t)regs->rax < 0;
	uint8_t code[2];

	if ((int64_t)regs->orig_rax >= 0 && regs->orig_rax & PS_X32_BIT)
		return PS_YES;
	if ((int64_t)regs->orig_rax < 0)
		return PS_NO; /* it computes */
	if (!ps_peek(s, ended ? regs->rip - 2 : regs->rip, code, sizeof(code)))
		return PS_NOT_KNOWN;
	return code[0] == 0xcd && code[1] == 0x80 ? PS_YES : PS_NO;
}
#endif
