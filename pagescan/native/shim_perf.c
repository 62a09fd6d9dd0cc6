/* SPDX-License-Identifier: MIT */
/* Page-fault samples: opens perf's software events, and empties their rings into columns. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kcmp.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "page.h"
#include "shim.h"

#define INHERIT_THREAD (1ull << 35) /* the bits behind read_format; 5.13 */
#define READ_LOST (1u << 4)	   /* PERF_FORMAT_LOST; 6.0 */
#define TASK_ROW 6
#define REGISTERS 8
/* bx, bp, sp, ip, r12 to r15; source: enum perf_event_x86_regs in asm/perf_regs.h */
#define REGISTER_MASK (1ull << 1 | 1ull << 6 | 1ull << 7 | 1ull << 8 | 0xfull << 20)

int ps_faults_open(int tid, int cpu, uint32_t flags, uint64_t period)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = period,
		.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR,
		.read_format = flags & PS_FAULTS_LOST ? READ_LOST : 0,
		.inherit = 1,
		.exclude_kernel = !!(flags & PS_FAULTS_USER),
		.exclude_hv = 1,
		.exclude_callchain_kernel = 1,
		.sample_max_stack = flags & PS_FAULTS_CALLERS ? PS_CHAIN + 1 : 0,
		.task = 1,
		.comm = 1,
		.comm_exec = 1,
		.sample_id_all = 1,
		.watermark = 1,
		.wakeup_watermark = 1u << 20,
		.use_clockid = 1,
		.clockid = 1, /* CLOCK_MONOTONIC */
	};
	uint64_t bits;
	long fd;

	if (flags & PS_FAULTS_CALLERS)
		attr.sample_type |= PERF_SAMPLE_CALLCHAIN;
	if (flags & PS_FAULTS_STACK) {
		attr.sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
		attr.sample_regs_user = REGISTER_MASK;
		attr.sample_stack_user = PS_STACK_WORDS * 8;
	}
	if (!(flags & PS_FAULTS_CHILDREN)) { /* a bit that older headers do not name */
		memcpy(&bits, (char *)&attr + 40, sizeof(bits));
		bits |= INHERIT_THREAD;
		memcpy((char *)&attr + 40, &bits, sizeof(bits));
	}
	fd = syscall(SYS_perf_event_open, &attr, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

int ps_faults_share(int fd, int ring)
{
	return ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, ring) < 0 ? -errno : 0;
}

int ps_faults_stop(int fd)
{
	return ioctl(fd, PERF_EVENT_IOC_DISABLE, 0) < 0 ? -errno : 0;
}

/* Copies from the ring, which is a power of two long, and wraps. */
static void copy(void *to, const uint8_t *data, uint64_t size, uint64_t at, uint64_t length)
{
	uint64_t first = size - (at & (size - 1));

	if (first > length)
		first = length;
	memcpy(to, data + (at & (size - 1)), first);
	memcpy((uint8_t *)to + first, data, length - first);
}

/*
 * Behind the four numbers of a sample: how many frames, and the frames, with marks between the kernel
 * and the program. The first frame of the program is the code itself, unless that is in the kernel.
 */
static void add_chain(uint64_t *chain, const uint64_t *body, uint64_t words)
{
	uint64_t used = 1;

	memset(chain, 0, PS_CHAIN * sizeof(*chain));
	chain[0] = body[0];
	if (words < 5)
		return;
	for (uint64_t i = 5; i < 5 + body[4] && i < words && used < PS_CHAIN; i++)
		if (body[i] < PERF_CONTEXT_MAX && body[i] != body[0])
			chain[used++] = body[i];
}

/*
 * Behind the four numbers of a sample at `at`: the ABI, unless it is 0 the registers, the size of the
 * stack, unless it is 0 the stack and how much of it was there.
 */
static void add_stack(uint64_t *row, const uint8_t *data, uint64_t size, uint64_t at, uint64_t end)
{
	uint64_t abi, length = 0;

	memset(row, 0, (REGISTERS + 1) * sizeof(*row));
	copy(&abi, data, size, at, 8);
	if (!abi || at + 8 * (2 + REGISTERS) > end)
		return;
	copy(row, data, size, at + 8, 8 * REGISTERS);
	at += 8 * (1 + REGISTERS);
	copy(&length, data, size, at, 8);
	if (!length || length > 8 * PS_STACK_WORDS || at + 16 + length > end)
		return;
	copy(&row[REGISTERS], data, size, at + 8 + length, 8);
	if (row[REGISTERS] > length)
		row[REGISTERS] = length;
	row[REGISTERS] /= 8;
	copy(row + REGISTERS + 1, data, size, at + 8, row[REGISTERS] * 8);
}

static void add_sample(struct ps_faults *out, const uint64_t *body, uint64_t words)
{
	int64_t at = out->length++;

	if (out->chain)
		add_chain(out->chain + at * PS_CHAIN, body, words);

	out->ip[at] = body[0];
	out->thread[at] = body[1] << 32 | body[1] >> 32; /* pid is the lower half of the record's */
	out->time[at] = body[2];
	out->address[at] = body[3];
}

/* Body of FORK and EXIT: pid, ppid, tid, ptid as u32, time. */
static void add_task(struct ps_faults *out, uint32_t type, const uint64_t *body)
{
	uint64_t *row = out->tasks + TASK_ROW * out->task_length++;

	row[0] = type;
	row[1] = body[2];
	row[2] = body[0] & UINT32_MAX;
	row[3] = body[0] >> 32;
	row[4] = body[1] & UINT32_MAX;
	row[5] = body[1] >> 32;
}

/*
 * Body of COMM: pid, tid as u32, the name; the id of the sample, pid and tid and time, is last. The
 * new name, of up to 16 bytes, stands in place of the parent and the maker.
 */
static void add_name(struct ps_faults *out, int is_exec, const uint8_t *body, uint64_t length)
{
	uint64_t *row = out->tasks + TASK_ROW * out->task_length++, name[2] = {0};
	uint32_t ids[2];

	memcpy(ids, body, sizeof(ids));
	memcpy(name, body + 8, length - 24 < 16 ? length - 24 : 16);
	row[0] = is_exec ? PERF_RECORD_COMM : PS_TASK_NAMED;
	memcpy(&row[1], body + length - 8, 8);
	row[2] = ids[0];
	row[3] = name[0];
	row[4] = ids[1];
	row[5] = name[1];
}

int ps_faults_drain(void *ring, uint64_t size, struct ps_faults *out)
{
	struct perf_event_mmap_page *page = ring;
	const uint8_t *data = (const uint8_t *)ring + ps_page_size();
	uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE);
	uint64_t tail = page->data_tail;
	uint64_t body[32];
	int full = 0;

	while (tail < head) {
		struct perf_event_header header;
		uint64_t length;

		copy(&header, data, size, tail, sizeof(header));
		if (header.size < sizeof(header))
			return -EBADMSG;
		if (out->length == out->capacity || out->task_length == out->task_capacity) {
			full = 1;
			break;
		}
		length = header.size - sizeof(header);
		if (length > sizeof(body))
			length = sizeof(body);
		copy(body, data, size, tail + sizeof(header), length);
		if (header.type == PERF_RECORD_SAMPLE && length >= 32) {
			if (out->stack && header.size >= 48)
				add_stack(out->stack + out->length * PS_STACK_ROW, data, size, tail + 40,
					  tail + header.size);
			add_sample(out, body, length / 8);
		} else if ((header.type == PERF_RECORD_FORK || header.type == PERF_RECORD_EXIT) && length >= 24)
			add_task(out, header.type, body);
		else if (header.type == PERF_RECORD_COMM && length >= 32)
			add_name(out, header.misc & PERF_RECORD_MISC_COMM_EXEC, (const uint8_t *)body, length);
		else if (header.type == PERF_RECORD_LOST && length >= 16)
			out->lost += body[1];
		tail += header.size;
	}
	__atomic_store_n(&page->data_tail, tail, __ATOMIC_RELEASE);
	return full;
}

static void move(struct ps_faults *to, int64_t at, const struct ps_faults *from, int64_t index)
{
	to->thread[at] = from->thread[index];
	to->time[at] = from->time[index];
	to->ip[at] = from->ip[index];
	to->address[at] = from->address[index];
	to->origin[at] = from->origin[index];
}

int ps_faults_move(struct ps_faults *from, uint32_t pid, struct ps_faults *to)
{
	int64_t length = 0, count = 0;

	for (int64_t i = 0; i < from->length; i++)
		count += from->thread[i] >> 32 == pid;
	if (count > to->capacity - to->length)
		return -ENOBUFS;
	for (int64_t i = 0; i < from->length; i++) {
		if (from->thread[i] >> 32 == pid)
			move(to, to->length++, from, i);
		else
			move(from, length++, from, i);
	}
	from->length = length;
	return 0;
}

int64_t ps_faults_lost(int fd)
{
	uint64_t values[2];

	return read(fd, values, sizeof(values)) == sizeof(values) ? (int64_t)values[1] : -errno;
}

int ps_same_memory(int pid, int other)
{
	long order = syscall(SYS_kcmp, pid, other, KCMP_VM, 0, 0);

	return order < 0 ? -errno : order == 0;
}
