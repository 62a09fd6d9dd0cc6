/* SPDX-License-Identifier: MIT */
/*
 * The mappings of the target, for the attach: visited one after another, and the name of one is
 * read only if the visitor asks for it. A process may have 65,530 of them, each with a path of 4
 * KiB: 250 MB of text for a few pages of code. Before Linux 6.11 only the text is available; it is
 * read in pieces.
 *
 * The kernel could skip all mappings that are not code, but it would hold the target's lock as
 * long.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "shim.h"
#include "uapi.h"

#define PIECE (64u << 10)  /* longer than any line: a path of 4 KiB, each byte written as four */
#define LEAST_LINE 40u
#define LINES (PIECE / LEAST_LINE)
#define COLUMNS 9u

static int ask(const struct surgery *s, uint64_t address, uint64_t flags, char *name, uint32_t room,
	       struct mapping *ret)
{
	struct ps_procmap_query query = {
		.size = sizeof(query),
		.query_flags = flags,
		.query_addr = address,
		.vma_name_size = room,
		.vma_name_addr = (uintptr_t)name,
	};

	if (ioctl(s->maps, PS_PROCMAP_QUERY, &query) < 0)
		return -errno;
	*ret = (struct mapping){
		.start = query.vma_start,
		.end = query.vma_end,
		.offset = query.vma_offset,
		.inode = query.inode,
		.device = (uint64_t)query.dev_major << 32 | query.dev_minor,
		.flags = query.vma_flags,
		.name = room ? name : NULL,
		.name_length = query.vma_name_size ? query.vma_name_size - 1 : 0,
	};
	return 0;
}

/*
 * Visits every mapping that existed at the start and still exists, until the visitor returns
 * nonzero.
 */
static int visit_by_asking(struct surgery *s, ps_visit *visit, void *context)
{
	struct mapping mapping = {.end = 0};
	int error;

	while ((error = ask(s, mapping.end, PS_PROCMAP_QUERY_COVERING_OR_NEXT_VMA, NULL, 0, &mapping)) == 0) {
		error = visit(s, &mapping, context);
		if (error)
			return error;
		if (ps_now_ns() > s->deadline)
			return -ETIMEDOUT;
	}
	return error == -ENOENT ? 0 : error;
}

/* Visits the lines of a piece, which are complete. */
static int visit_lines(struct surgery *s, const char *text, size_t length, struct ps_maps *maps,
		       ps_visit *visit, void *context)
{
	int error = ps_maps_parse(text, length, -1, maps);

	if (error)
		return error < 0 ? error : -EBADMSG;
	for (size_t i = 0; i < maps->length && !error; i++) {
		struct mapping mapping = {
			.start = maps->start[i],
			.end = maps->end[i],
			.offset = maps->offset[i],
			.inode = maps->inode[i],
			.device = maps->device[i],
			.flags = maps->flags[i],
			.name = text + maps->name_at[i],
			.name_length = maps->name_length[i],
		};

		error = visit(s, &mapping, context);
	}
	return error;
}

static int visit_text(struct surgery *s, char *text, uint64_t *columns, ps_visit *visit, void *context)
{
	struct ps_maps maps = {
		.start = columns,
		.end = columns + LINES,
		.offset = columns + 2 * LINES,
		.inode = columns + 3 * LINES,
		.device = columns + 4 * LINES,
		.flags = columns + 5 * LINES,
		.name_at = columns + 6 * LINES,
		.name_length = columns + 7 * LINES,
		.page_size = columns + 8 * LINES,
		.capacity = LINES,
	};
	size_t length = 0;
	ssize_t got;
	int error = lseek(s->maps, 0, SEEK_SET) < 0 ? -errno : 0;

	while (!error && (got = read(s->maps, text + length, PIECE - length)) > 0) {
		const char *last = memrchr(text, '\n', length += (size_t)got);
		size_t whole = last ? (size_t)(last + 1 - text) : 0;

		error = whole ? visit_lines(s, text, whole, &maps, visit, context)
			      : (length == PIECE ? -EBADMSG : 0);
		memmove(text, text + whole, length -= whole);
		if (!error && ps_now_ns() > s->deadline)
			error = -ETIMEDOUT;
	}
	return error;
}

/* Visits them in the order of addresses; returns 0, the visitor's value, or an error. */
int ps_visit_mappings(struct surgery *s, ps_visit *visit, void *context)
{
	uint8_t *room = s->room;
	size_t room_left = s->room_left;
	int error = visit_by_asking(s, visit, context);
	uint64_t *columns;
	char *text;

	if (error != -ENOTTY)
		return error;
	text = ps_room(s, PIECE);
	columns = ps_room(s, (size_t)COLUMNS * LINES * sizeof(*columns));
	error = text && columns ? visit_text(s, text, columns, visit, context) : -ENOMEM;
	s->room = room; /* what the visitor stores stays */
	s->room_left = room_left;
	return error;
}

struct wanted {
	uint64_t address;
	struct mapping *mapping;
	char *name;
	size_t room;
};

static int find(struct surgery *s, const struct mapping *mapping, void *context)
{
	struct wanted *wanted = context;

	(void)s;
	if (wanted->address >= mapping->end)
		return 0;
	if (wanted->address < mapping->start)
		return -ENOENT;
	*wanted->mapping = *mapping;
	wanted->mapping->name = wanted->name;
	if (mapping->name_length >= wanted->room)
		wanted->mapping->name_length = 0;
	memcpy(wanted->name, mapping->name, wanted->mapping->name_length);
	wanted->name[wanted->mapping->name_length] = 0;
	return 1;
}

/* Finds the mapping of an address, with its name; a name longer than the room is left out. */
bool ps_mapping_at(struct surgery *s, uint64_t address, struct mapping *ret, char *name, size_t room)
{
	struct wanted wanted = {address, ret, name, room};
	int error = ask(s, address, 0, name, (uint32_t)room, ret);

	*ret = error ? (struct mapping){.name = name} : *ret;
	if (error == -ENAMETOOLONG)
		error = ask(s, address, 0, NULL, 0, ret);
	ret->name = name;
	if (!ret->name_length)
		*name = 0;
	if (error == -ENOTTY)
		error = ps_visit_mappings(s, find, &wanted) == 1 ? 0 : -ENOENT;
	return !error;
}
#endif
