/* SPDX-License-Identifier: MIT */
/*
 * System calls that end early without a signal: a stop alone makes them return EINTR, or a part of the
 * result.
 *
 * Most calls return -ERESTART* instead, and the kernel restarts them: signal(7). The rows here come from
 * its source (Linux 6.18: each `return -EINTR` after signal_pending()), and each restarted call has a
 * test. If a call has no running timeout, restarting it is the same as never stopping it. So
 * -ERESTARTNOHAND replaces -EINTR, and the kernel decides as for pause(2): EINTR if there is a signal to
 * handle, otherwise the call goes on.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define SYS_EPOLL_PWAIT2 441
#define SYS_SENDMMSG 307

/* When a wait that a stop ends may be restarted. */
enum exact {
	ALWAYS,	  /* always: it has no timeout */
	IF_NULL,  /* if that argument, the timeout, is NULL */
	IF_MINUS, /* if that argument is a negative int */
	RING,	  /* io_uring_enter(2): see is_endless_ring */
	NEVER, /* the amount done, or a socket's timeout, is unknown */
};

static const struct row {
	int32_t number;
	enum exact exact;
	uint32_t argument; /* counted from 0 */
} rows[] = {
	{SYS_epoll_wait, IF_MINUS, 3},
	{SYS_epoll_pwait, IF_MINUS, 3},
	{SYS_EPOLL_PWAIT2, IF_NULL, 3},
	{SYS_rt_sigtimedwait, IF_NULL, 2},
	{SYS_semop, ALWAYS, 0},
	{SYS_semtimedop, IF_NULL, 3},
	{SYS_io_getevents, IF_NULL, 4},
	{PS_SYS_IO_URING_ENTER, RING, 0},
	{SYS_fallocate, ALWAYS, 0}, /* of tmpfs and hugetlbfs, on some kernels */
	{SYS_read, NEVER, 0},
	{SYS_write, NEVER, 0},
	{SYS_readv, NEVER, 0},
	{SYS_writev, NEVER, 0},
	{SYS_close, NEVER, 0},
	{SYS_ioctl, NEVER, 0},
	{SYS_connect, NEVER, 0},
	{SYS_accept, NEVER, 0},
	{SYS_accept4, NEVER, 0},
	{SYS_sendto, NEVER, 0},
	{SYS_sendmsg, NEVER, 0},
	{SYS_SENDMMSG, NEVER, 0},
	{SYS_recvfrom, NEVER, 0},
	{SYS_recvmsg, NEVER, 0},
	{SYS_recvmmsg, NEVER, 0},
	{SYS_sendfile, NEVER, 0},
	{SYS_splice, NEVER, 0},
	{SYS_tee, NEVER, 0},
	{SYS_vmsplice, NEVER, 0},
	{SYS_copy_file_range, NEVER, 0},
	{SYS_getrandom, NEVER, 0},
	{SYS_bpf, NEVER, 0},
	/*
	 * They are restarted with the remaining time, so they last longer by the time of the stop.
	 */
	{SYS_ppoll, NEVER, 0},
	{SYS_select, NEVER, 0},
	{SYS_pselect6, NEVER, 0},
	/* If we die, a signal at the same moment may be missed. */
	{SYS_pause, NEVER, 0},
	{SYS_rt_sigsuspend, NEVER, 0},
};

#define IORING_ENTER_EXT_ARG (1u << 3)
#define IORING_ENTER_ABS_TIMER (1u << 5)
#define IORING_ENTER_EXT_ARG_REG (1u << 6)

/* Its timeout is in a structure, or in memory known only to the kernel. */
static bool is_endless_ring(const struct surgery *s, const uint64_t *arguments)
{
	struct {
		uint64_t mask;
		uint32_t mask_size, least_wait_us;
		uint64_t timeout;
	} extended;
	uint64_t flags = arguments[3];

	if (!(flags & IORING_ENTER_EXT_ARG))
		return true;
	if (flags & IORING_ENTER_EXT_ARG_REG ||
	    !ps_peek(s, arguments[4], &extended, sizeof(extended)))
		return false;
	return (!extended.timeout || flags & IORING_ENTER_ABS_TIMER) && !extended.least_wait_us;
}

static bool is_endless(const struct surgery *s, const struct row *row, const uint64_t *arguments)
{
	switch (row->exact) {
	case ALWAYS:
		return true;
	case IF_NULL:
		return !arguments[row->argument];
	case IF_MINUS:
		return (int32_t)arguments[row->argument] < 0;
	case RING:
		return is_endless_ring(s, arguments);
	case NEVER:
		break;
	}
	return false;
}

static const struct row *row_of(int64_t number)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (rows[i].number == number)
			return &rows[i];
	return NULL;
}

/* Makes the kernel decide again about a call that returned EINTR only because of the stop. */
void ps_start_over(struct surgery *s)
{
	struct user_regs_struct *regs = &s->saved;
	const uint64_t arguments[6] = {regs->rdi, regs->rsi, regs->rdx,
				       regs->r10, regs->r8,  regs->r9};
	const struct row *row = row_of((int64_t)regs->orig_rax);

	if ((int64_t)regs->rax == -EINTR && row && is_endless(s, row, arguments))
		regs->rax = (unsigned long)-PS_ERESTARTNOHAND;
}

/*
 * How much a stop would disturb a thread, by the call that it waits in: 0 not at all, 1 its call is
 * restarted, 2 it may end early, 3 unknown.
 */
int ps_rank_of_call(const struct surgery *s)
{
	char text[256], *at = text;
	uint64_t arguments[6];
	const struct row *row;
	size_t length = ps_read_file(s, "syscall", text, sizeof(text) - 1);

	text[length] = 0;
	if (!length)
		return 3;
	if (!strncmp(text, "running", 7) || *text == '-')
		return 0;
	row = row_of((int64_t)strtoull(at, &at, 10));
	for (size_t i = 0; i < sizeof(arguments) / sizeof(*arguments); i++)
		arguments[i] = strtoull(at, &at, 16);
	return !row ? 0 : is_endless(s, row, arguments) ? 1 : 2;
}
#endif
