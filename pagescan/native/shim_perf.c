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
#define TASK_ROW 6

int ps_faults_open(int tid, int cpu, uint32_t flags, uint64_t period)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = period,
		.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR,
		.inherit = 1,
		.exclude_kernel = !!(flags & PS_FAULTS_USER),
		.exclude_hv = 1,
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

/* Copies from the ring, which is a power of two long, and wraps. */
static void copy(void *to, const uint8_t *data, uint64_t size, uint64_t at, uint64_t length)
{
	uint64_t first = size - (at & (size - 1));

	if (first > length)
		first = length;
	memcpy(to, data + (at & (size - 1)), first);
	memcpy((uint8_t *)to + first, data, length - first);
}

static void add_sample(struct ps_faults *out, const uint64_t *body)
{
	int64_t at = out->length++;

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

/* Body of COMM: pid, tid as u32, the name; the id of the sample, pid and tid and time, is last. */
static void add_exec(struct ps_faults *out, const uint8_t *body, uint64_t length)
{
	uint64_t *row = out->tasks + TASK_ROW * out->task_length++;
	uint32_t ids[2];

	memcpy(ids, body, sizeof(ids));
	row[0] = PERF_RECORD_COMM;
	memcpy(&row[1], body + length - 8, 8);
	row[2] = row[3] = ids[0];
	row[4] = row[5] = ids[1];
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
		if (header.type == PERF_RECORD_SAMPLE && length >= 32)
			add_sample(out, body);
		else if ((header.type == PERF_RECORD_FORK || header.type == PERF_RECORD_EXIT) && length >= 24)
			add_task(out, header.type, body);
		else if (header.type == PERF_RECORD_COMM && header.misc & PERF_RECORD_MISC_COMM_EXEC &&
			 length >= 24)
			add_exec(out, (const uint8_t *)body, length);
		else if (header.type == PERF_RECORD_LOST && length >= 16)
			out->lost += body[1];
		tail += header.size;
	}
	__atomic_store_n(&page->data_tail, tail, __ATOMIC_RELEASE);
	return full;
}

int ps_same_memory(int pid, int other)
{
	long order = syscall(SYS_kcmp, pid, other, KCMP_VM, 0, 0);

	return order < 0 ? -errno : order == 0;
}
