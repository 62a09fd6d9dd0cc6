/* SPDX-License-Identifier: MIT */
/*
 * Finds, before anything is stopped, the parts of the target that the attach borrows: instructions
 * in its file-backed code, and a few bytes of unused memory. Nothing is changed, and the bytes of
 * code are read from the files if possible, because reading them through the target faults pages
 * in.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "clock.h"
#include "shim.h"
#include "uapi.h"

#define CODE_LIMIT (64u << 20)
#define PIECE (1u << 20)
#define LONGEST_CODE 16u
#define MOST_CODE 65536u /* limit of mappings that are examined */

/* Facts about the mappings. */
struct survey {
	struct code *code;
	size_t count;
	struct mapping head; /* the beginning of the last file */
	bool donates;	  /* it has musl, which gives the bytes behind a .bss to malloc */
};

static bool has(const char *name, const char *part)
{
	return strstr(name, part) != NULL;
}

/*
 * The order in which code is searched: code that will surely stay mapped first; JIT memory never
 * (-1). An empty name was too long to be read.
 */
static int order_of(const struct mapping *mapping, const char *name)
{
	if (!strcmp(name, "[vdso]"))
		return 3;
	if (!mapping->inode || (*name && *name != '/'))
		return -1;
	if (has(name, "/libc.so") || has(name, "/libc-2") || has(name, "/ld-musl"))
		return 0;
	return *name && !has(name, "/lib") ? 1 : 2;
}

static void name_code(struct surgery *s, const struct mapping *mapping, char *name, size_t room)
{
	struct mapping again;

	*name = 0;
	if (!mapping->name) {
		ps_mapping_at(s, mapping->start, &again, name, room);
	} else if (mapping->name_length < room) {
		memcpy(name, mapping->name, mapping->name_length);
		name[mapping->name_length] = 0;
	}
}

/* Records code, and where its file begins: before it, in the order of the loader. */
static int survey(struct surgery *s, const struct mapping *mapping, void *context)
{
	struct survey *found = context;
	char name[256];
	bool is_same;
	int order;

	if (mapping->inode && !mapping->offset)
		found->head = *mapping;
	if (!(mapping->flags & PS_MAP_EXEC) || mapping->flags & PS_MAP_WRITE || found->count == MOST_CODE)
		return 0;
	name_code(s, mapping, name, sizeof(name));
	order = order_of(mapping, name);
	if (order < 0)
		return 0;
	is_same = mapping->inode && mapping->inode == found->head.inode &&
		  mapping->device == found->head.device;
	found->donates |= !*name || has(name, "/ld-musl");
	found->code[found->count++] = (struct code){
		.start = mapping->start,
		.end = mapping->end,
		.offset = mapping->offset,
		.inode = mapping->inode,
		.device = mapping->device,
		.head = is_same ? found->head.start : 0,
		.order = order,
		/* the loader uses these bytes for its own allocator */
		.no_slack = has(name, "/ld-"),
	};
	return 0;
}

/*
 * Finds the file of a mapping by its name, which the target chooses: no link is followed (maps shows
 * the path without links), and it must be the mapped file.
 */
static int find_by_name(struct surgery *s, const struct code *code)
{
	char path[64], name[4096];
	struct mapping mapping;
	struct stat facts;
	int root, found;

	if (!ps_mapping_at(s, code->start, &mapping, name, sizeof(name)) || *name != '/')
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/root", s->call->pid, s->tid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -1;
	found = ps_open_in_root(root, name, 0);
	close(root);
	if (found < 0 || (fstat(found, &facts) == 0 && facts.st_ino == code->inode &&
			  major(facts.st_dev) == code->device >> 32 &&
			  minor(facts.st_dev) == (code->device & 0xffffffffu)))
		return found;
	close(found);
	return -1;
}

/*
 * Opens the file behind code without touching the target; -1: only its memory is left. It is looked
 * up with O_PATH first, because opening has effects if it is a device or another special file.
 */
static int open_code(struct surgery *s, const struct code *code)
{
	char path[64];
	struct stat facts;
	int found, fd = -1;

	if (!code->inode)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", s->call->pid, code->start,
		 code->end);
	found = open(path, O_PATH | O_CLOEXEC);
	if (found < 0 && errno != ENOENT) /* ENOENT: the mapping is gone */
		found = find_by_name(s, code);
	if (found < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", found);
	if (fstat(found, &facts) == 0 && S_ISREG(facts.st_mode))
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	close(found);
	return fd;
}

/* Takes a gadget if none was found yet and the bytes in memory equal those of the file. */
static void keep(const struct surgery *s, uint64_t *gadget, uint64_t address, const uint8_t *code,
		 size_t length)
{
	uint8_t living[16];

	if (!*gadget && ps_peek(s, address, living, length) && !memcmp(living, code, length))
		*gadget = address;
}

/* A system call, unless the target may not make it from there; `behind` is its length. */
static void keep_call(const struct surgery *s, uint64_t *gadget, uint64_t address,
		      const uint8_t *code, size_t length, size_t behind)
{
	const struct ps_attach *call = s->call;

	if (!call->allowed_length || address + behind - call->allowed_start < call->allowed_length)
		keep(s, gadget, address, code, length);
}

static void keep_restorer(struct surgery *s, uint64_t address, const uint8_t *code, size_t length)
{
	if (s->all_gadgets.restorer)
		return;
	keep_call(s, &s->all_gadgets.restorer, address, code, length, length);
	s->all_gadgets.restorer_length = length;
}

static void search(struct surgery *s, uint64_t start, const uint8_t *code, size_t length)
{
	static const uint8_t long_restorer[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05};
	static const uint8_t short_restorer[] = {0xb8, 15, 0, 0, 0, 0x0f, 0x05};
	struct gadgets *g = &s->all_gadgets;

	for (size_t i = 0; i + LONGEST_CODE < length; i++) {
		const uint8_t *at = code + i;
		uint64_t address = start + i;
		uint64_t imm;

		switch (*at) {
		case 0x0f:
			if (at[1] == 0x05) {
				keep_call(s, &g->syscall, address, at, 2, 2);
				if (at[2] == 0xc3)
					keep_call(s, &g->syscall_ret, address, at, 3, 2);
			}
			break;
		case 0x48:
			if (!memcmp(at, long_restorer, sizeof(long_restorer)))
				keep_restorer(s, address, at, sizeof(long_restorer));
			break;
		case 0xb8:
			if (!memcmp(at, short_restorer, sizeof(short_restorer)))
				keep_restorer(s, address, at, sizeof(short_restorer));
			break;
		case 0x58:
			if (at[1] == 0xc3)
				keep(s, &g->pop_rax, address, at, 2);
			break;
		case 0x5f:
			if (at[1] == 0xc3)
				keep(s, &g->pop_rdi, address, at, 2);
			break;
		case 0xc2:
			imm = (uint64_t)(at[1] | at[2] << 8);
			if (imm >= 128 && imm % 8 == 0)
				keep(s, &g->ret_imm[imm / PS_PAGE], address, at, 3);
			break;
		}
	}
}

static bool complete(const struct gadgets *g)
{
	return g->syscall_ret && g->restorer && g->pop_rax && g->pop_rdi && g->ret_imm[0];
}

static bool done(const struct surgery *s)
{
	return complete(&s->all_gadgets) || ps_now_ns() > s->deadline;
}

/* In pieces, so that it ends: the file may be a hole, and the code of any length. */
static void search_code(struct surgery *s, const struct code *code, uint8_t *piece)
{
	uint64_t most = code->end - code->start;
	int fd = open_code(s, code);

	if (most > CODE_LIMIT)
		most = CODE_LIMIT;
	for (uint64_t at = 0; at < most && !done(s); at += PIECE - LONGEST_CODE) {
		size_t length = most - at < PIECE ? most - at : PIECE;
		ssize_t got = -1;

		if (fd >= 0)
			got = pread(fd, piece, length, (off_t)(code->offset + at));
		if (got <= 0)
			got = pread(s->memory, piece, length, (off_t)(code->start + at));
		if (got <= 0)
			break;
		search(s, code->start + at, piece, (size_t)got);
	}
	if (fd >= 0)
		close(fd);
}

int ps_find_gadgets(struct surgery *s)
{
	struct survey found = {.code = ps_room(s, MOST_CODE * sizeof(*found.code))};
	uint8_t *piece = ps_room(s, PIECE);
	char path[64];
	int error;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/maps", s->call->pid, s->tid);
	s->maps = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/pagemap", s->call->pid, s->tid);
	s->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (s->maps < 0 || s->pagemap < 0)
		return -errno;
	if (!piece || !found.code)
		return -ENOMEM;
	error = ps_visit_mappings(s, survey, &found);
	if (error)
		return error;
	for (int order = 0; order <= 3 && !done(s); order++)
		for (size_t i = 0; i < found.count && !done(s); i++)
			if (found.code[i].order == order)
				search_code(s, &found.code[i], piece);
	ps_find_places(s, found.code, found.donates ? 0 : found.count);
	if (!complete(&s->all_gadgets) && ps_now_ns() > s->deadline)
		return -ETIMEDOUT;
	return s->all_gadgets.syscall ? 0 : -ENOENT;
}

void ps_forget_gadgets(struct surgery *s)
{
	if (s->maps >= 0)
		close(s->maps);
	if (s->pagemap >= 0)
		close(s->pagemap);
}
#endif
