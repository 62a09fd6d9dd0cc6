/* SPDX-License-Identifier: MIT */
/* Reads files of /proc/PID, and parses maps: large reads, parsed in C, are faster than PROCMAP_QUERY. */
#include <errno.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "maps.h"
#include "pace.h"
#include "page.h"
#include "scan.h"
#include "shim.h"

struct text {
	const char *at;
	const char *end;
};

/* Reads a number and the character `behind` it; false if the text does not begin with both. */
static bool number(struct text *text, unsigned base, char behind, uint64_t *ret)
{
	uint64_t value = 0;
	const char *begin = text->at;

	for (; text->at < text->end; text->at++) {
		char c = *text->at;
		unsigned digit = c >= '0' && c <= '9'	? (unsigned)(c - '0')
				 : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
							: 99;

		if (digit >= base)
			break;
		if (__builtin_mul_overflow(value, base, &value) ||
		    __builtin_add_overflow(value, digit, &value))
			return false;
	}
	*ret = value;
	if (text->at == begin || text->at == text->end || *text->at != behind)
		return false;
	text->at++;
	return true;
}

static bool permissions(struct text *text, uint64_t *ret)
{
	const char *p = text->at;

	if (text->end - p < 5 || (p[0] != 'r' && p[0] != '-') || (p[1] != 'w' && p[1] != '-') ||
	    (p[2] != 'x' && p[2] != '-') || (p[3] != 's' && p[3] != 'p') || p[4] != ' ')
		return false;
	*ret = (p[0] == 'r' ? PS_MAP_READ : 0) | (p[1] == 'w' ? PS_MAP_WRITE : 0) |
	       (p[2] == 'x' ? PS_MAP_EXEC : 0) | (p[3] == 's' ? PS_MAP_SHARED : 0);
	text->at += 5;
	return true;
}

/* "7f00-7f10 rw-p 00000000 08:01 123    /path with anything but a newline\n" */
static bool line(struct text *text, const char *begin, struct ps_maps *out, uint64_t row)
{
	uint64_t major, minor;
	const char *inode;

	if (!number(text, 16, '-', &out->start[row]) || !number(text, 16, ' ', &out->end[row]) ||
	    !permissions(text, &out->flags[row]) || !number(text, 16, ' ', &out->offset[row]) ||
	    !number(text, 16, ':', &major) || !number(text, 16, ' ', &minor) ||
	    (major | minor) > UINT32_MAX)
		return false;
	out->device[row] = major << 32 | minor;
	/* The inode is followed by blanks and a name, or by the newline at once. */
	inode = text->at;
	if (!number(text, 10, ' ', &out->inode[row]) &&
	    (text->at == inode || text->at == text->end || *text->at != '\n'))
		return false;
	while (text->at < text->end && *text->at == ' ')
		text->at++;
	out->name_at[row] = (uint64_t)(text->at - begin);
	while (text->at < text->end && *text->at != '\n')
		text->at++;
	out->name_length[row] = (uint64_t)(text->at - begin) - out->name_at[row];
	if (text->at == text->end) /* the text ends within the line */
		return false;
	text->at++;
	out->page_size[row] = 0;
	return out->start[row] < out->end[row];
}

int ps_ask_mapping(int maps, uint64_t at, struct ps_procmap_query *query, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns();
	int error;

	*query = (struct ps_procmap_query){
		.size = sizeof(*query),
		.query_flags = PS_PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
		.query_addr = at,
	};
	error = ioctl(maps, PS_PROCMAP_QUERY, query) < 0 ? -errno : 0;
	ps_cost_call(cost, ps_now_ns() - begun);
	return error;
}

int ps_mapping_begins(int maps, uint64_t at, struct ps_cost *cost)
{
	struct ps_procmap_query now;
	int error = ps_ask_mapping(maps, at, &now, cost);

	return error ? error : now.vma_start == at;
}

/* Asks for the page size where it may differ: on hugetlbfs, whose device has major number 0. */
static int ask_page_size(int maps, struct ps_maps *out, uint64_t row)
{
	struct ps_procmap_query query;
	int error;

	if (!out->inode[row] || out->device[row] >> 32)
		return 0;
	error = ps_ask_mapping(maps, out->start[row], &query, &out->cost);
	if (error)
		return error == -ENOENT ? 0 : error; /* ENOENT: it has been unmapped */
	if (query.vma_start <= out->start[row] && query.vma_page_size > ps_page_size())
		out->page_size[row] = query.vma_page_size;
	return 0;
}

int ps_maps_parse(const char *text, uint64_t length, int maps, struct ps_maps *out)
{
	struct text rest = {text, text + length};
	int asked = 0;

	for (out->length = 0; rest.at < rest.end; out->length++) {
		if (out->length == out->capacity)
			return 1;
		if (!line(&rest, text, out, out->length))
			return -EBADMSG;
		if (maps >= 0 && !asked)
			asked = ask_page_size(maps, out, out->length);
	}
	return asked;
}

int ps_read_slices(int file, char *text, uint64_t room, uint64_t slice, struct ps_pace *pace,
		   uint64_t *length, struct ps_cost *cost)
{
	uint64_t first = ps_now_ns();

	for (*length = 0; *length < room && ps_now_ns() - first < PS_BREATHER_NS;) {
		uint64_t left = room - *length, begun = ps_now_ns();
		ssize_t got = read(file, text + *length, left < slice ? left : slice);
		int error = errno;

		if (pace)
			ps_pace_call(pace, cost, 0, ps_now_ns() - begun);
		else
			ps_cost_call(cost, ps_now_ns() - begun);
		if (got < 0)
			return -error;
		if (!got)
			return 0;
		*length += (uint64_t)got;
	}
	return 1;
}

int64_t ps_read_memory(int memory, char *to, uint64_t size, uint64_t start, struct ps_cost *cost)
{
	uint64_t begun = ps_now_ns();
	ssize_t got = pread(memory, to, size, (off_t)start);
	int error = errno;

	ps_cost_call(cost, ps_now_ns() - begun);
	return got < 0 ? -error : got;
}
