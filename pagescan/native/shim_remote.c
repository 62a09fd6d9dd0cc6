/* SPDX-License-Identifier: MIT */
/*
 * What the attach reads and writes of another process: its memory, its mappings, the files of its
 * /proc directory. Nothing here stops it or decides anything.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "shim.h"
#include "uapi.h"

bool ps_peek(const struct surgery *s, uint64_t address, void *ret, size_t size)
{
	return pread(s->memory, ret, size, (off_t)address) == (ssize_t)size;
}

bool ps_poke(const struct surgery *s, uint64_t address, const void *data, size_t size)
{
	return pwrite(s->memory, data, size, (off_t)address) == (ssize_t)size;
}

/* Reads a file of the thread's /proc directory; returns its length, 0 where there is none. */
size_t ps_read_file(const struct surgery *s, const char *name, void *ret, size_t size)
{
	char path[64];
	ssize_t length = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", s->call->pid, s->tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, ret, size);
		close(fd);
	}
	return length > 0 ? (size_t)length : 0;
}

void ps_read_status(const struct surgery *s, char *text, size_t size)
{
	text[ps_read_file(s, "status", text, size - 1)] = 0;
}

uint64_t ps_status_field(const char *status, const char *name, int base)
{
	const char *at = strstr(status, name);

	return at ? strtoull(at + strlen(name), NULL, base) : 0;
}

/* When the process began, in clock ticks since boot; 0: it cannot be read. */
uint64_t ps_start_time(const struct surgery *s)
{
	char path[64], text[PS_STAT_SIZE], *at;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", s->call->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	at = strrchr(text, ')'); /* the name before it may hold anything */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

void *ps_room(struct surgery *s, size_t size)
{
	void *room = s->room;

	size = (size + 63) & ~(size_t)63;
	if (size > s->room_left)
		return NULL;
	s->room += size;
	s->room_left -= size;
	return room;
}

/* Reads all of a file that can be read from its start; NULL: no room, or no time. */
static char *read_whole(struct surgery *s, int fd, size_t *length)
{
	char *text = (char *)s->room;
	size_t most = s->room_left / 4; /* what is made of it takes more than it does */
	ssize_t got;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return NULL;
	for (*length = 0; (got = read(fd, text + *length, most - *length)) > 0;) {
		*length += (size_t)got;
		if (*length == most || ps_now_ns() > s->deadline)
			return NULL;
	}
	return ps_room(s, *length);
}

static int parse(struct surgery *s, const char *text, size_t length, struct listing *ret)
{
	size_t lines = 0;
	uint64_t *columns;
	struct ps_maps maps;
	int error;

	for (const char *at = text; (at = memchr(at, '\n', length - (size_t)(at - text))); at++)
		lines++;
	columns = ps_room(s, (lines + 1) * 9 * sizeof(*columns));
	ret->areas = ps_room(s, (lines + 1) * sizeof(*ret->areas));
	if (!columns || !ret->areas)
		return -ENOMEM;
	maps = (struct ps_maps){
		.start = columns,
		.end = columns + lines,
		.offset = columns + 2 * lines,
		.inode = columns + 3 * lines,
		.device = columns + 4 * lines,
		.flags = columns + 5 * lines,
		.name_at = columns + 6 * lines,
		.name_length = columns + 7 * lines,
		.page_size = columns + 8 * lines,
		.capacity = lines,
	};
	error = ps_maps_parse(text, length, -1, &maps);
	ret->count = maps.length;
	for (size_t i = 0; i < ret->count; i++)
		ret->areas[i] = (struct area){
			.start = maps.start[i],
			.end = maps.end[i],
			.offset = maps.offset[i],
			.inode = maps.inode[i],
			.device = maps.device[i],
			.flags = maps.flags[i],
			.name = text + maps.name_at[i],
			.name_length = maps.name_length[i],
		};
	return error < 0 ? error : 0;
}

/* The listing lies in the room: whoever wants that back keeps s->room and s->room_left before. */
int ps_read_maps(struct surgery *s, struct listing *ret)
{
	size_t length;
	const char *text = read_whole(s, s->maps, &length);

	if (!text)
		return ps_now_ns() > s->deadline ? -ETIMEDOUT : -ENOMEM;
	return parse(s, text, length, ret);
}

/* Asked while a thread is stopped: PROCMAP_QUERY is quick where there are many mappings (Linux 6.11). */
bool ps_area_at(struct surgery *s, uint64_t address, struct area *ret)
{
	struct ps_procmap_query query = {
		.size = sizeof(query),
		.query_addr = address,
		.vma_name_size = sizeof(ret->name_room),
		.vma_name_addr = (uintptr_t)ret->name_room,
	};
	struct listing list = {.count = 0};
	uint8_t *room = s->room;
	size_t room_left = s->room_left;
	bool found = false;

	memset(ret, 0, sizeof(*ret));
	if (!ioctl(s->maps, PS_PROCMAP_QUERY, &query)) {
		ret->start = query.vma_start;
		ret->end = query.vma_end;
		ret->flags = query.vma_flags;
		ret->name = ret->name_room;
		ret->name_length = query.vma_name_size ? query.vma_name_size - 1 : 0;
		return true;
	}
	if (errno != ENOTTY)
		return false;
	ps_read_maps(s, &list);
	for (size_t i = 0; i < list.count && !found; i++) {
		if (address >= list.areas[i].start && address < list.areas[i].end) {
			*ret = list.areas[i];
			if (ret->name_length >= sizeof(ret->name_room))
				ret->name_length = sizeof(ret->name_room) - 1;
			memcpy(ret->name_room, ret->name, ret->name_length);
			ret->name_room[ret->name_length] = 0;
			ret->name = ret->name_room;
			found = true;
		}
	}
	s->room = room;
	s->room_left = room_left;
	return found;
}

/* Reading a page that is not there would put the zero page there: ask first. */
bool ps_is_present(const struct surgery *s, uint64_t address)
{
	uint64_t entry;

	return pread(s->pagemap, &entry, sizeof(entry),
		     (off_t)(address / PS_PAGE * sizeof(entry))) == sizeof(entry) &&
	       entry >> 63;
}
#endif
