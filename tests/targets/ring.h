/* SPDX-License-Identifier: MIT */
/*
 * The part of io_uring that a read into one page needs: the kernel stores, not a system call of
 * ours.
 */
#ifndef RING_H
#define RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct ring {
	int fd;
	struct io_uring_params params;
	char *queues;
	struct io_uring_sqe *entries;
};

static bool ring_open(struct ring *r)
{
	struct io_uring_params *p = &r->params;
	size_t sq, cq;

	memset(p, 0, sizeof(*p));
	r->fd = (int)syscall(__NR_io_uring_setup, 1, p);
	if (r->fd < 0 || !(p->features & IORING_FEAT_SINGLE_MMAP))
		return false;
	sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	r->queues = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
			 IORING_OFF_SQ_RING);
	r->entries = mmap(NULL, sizeof(*r->entries), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
			  IORING_OFF_SQES);
	return r->queues != MAP_FAILED && (void *)r->entries != MAP_FAILED;
}

/* Pins memory for good: later reads into it take no fault. */
static bool ring_pin(struct ring *r, void *at, size_t length)
{
	struct iovec buffer = {at, length};

	return syscall(__NR_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &buffer, 1) == 0;
}

/* Reads from a descriptor, and waits; returns the number of bytes, or a negative number. */
static int ring_read(struct ring *r, int from, void *at, unsigned length, bool pinned)
{
	uint32_t *tail = (uint32_t *)(void *)(r->queues + r->params.sq_off.tail);
	uint32_t *array = (uint32_t *)(void *)(r->queues + r->params.sq_off.array);
	uint32_t *head = (uint32_t *)(void *)(r->queues + r->params.cq_off.head);
	uint32_t *mask = (uint32_t *)(void *)(r->queues + r->params.cq_off.ring_mask);
	struct io_uring_cqe *done = (void *)(r->queues + r->params.cq_off.cqes);
	int result;

	memset(r->entries, 0, sizeof(*r->entries));
	r->entries->opcode = pinned ? IORING_OP_READ_FIXED : IORING_OP_READ;
	r->entries->fd = from;
	r->entries->addr = (uintptr_t)at;
	r->entries->len = length;
	array[*tail & (r->params.sq_entries - 1)] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return -1;
	result = done[*head & *mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

#endif
