/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes another process for the attach: its memory, and the files of its /proc directory
 * (shim_areas.c reads its mappings). Nothing here stops it or decides anything.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

bool ps_peek(const struct surgery *s, uint64_t address, void *ret, size_t size)
{
	return pread(s->memory, ret, size, (off_t)address) == (ssize_t)size;
}

bool ps_poke(const struct surgery *s, uint64_t address, const void *data, size_t size)
{
	return pwrite(s->memory, data, size, (off_t)address) == (ssize_t)size;
}

/* Reads a file of the thread's /proc directory; returns its length, 0 if there is no such file. */
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

/* Returns the start time of the process in clock ticks since boot; 0: unreadable. */
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
	at = strrchr(text, ')'); /* the name before it may contain any character */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

/* Returns a field of the thread's stat, from the third on; 0: unreadable. */
uint64_t ps_stat_field(const struct surgery *s, int number)
{
	char text[PS_STAT_SIZE], *at;

	text[ps_read_file(s, "stat", text, sizeof(text) - 1)] = 0;
	at = strrchr(text, ')');
	for (int field = 2; at && field < number; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

/* Reading an absent page would map the zero page there, so ask first. */
bool ps_is_present(const struct surgery *s, uint64_t address)
{
	uint64_t entry;

	return pread(s->pagemap, &entry, sizeof(entry),
		     (off_t)(address / PS_PAGE * sizeof(entry))) == sizeof(entry) &&
	       entry >> 63;
}
#endif
