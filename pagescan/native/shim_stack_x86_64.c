/* SPDX-License-Identifier: MIT */
/*
 * Finds empty memory for the stack that restores a thread.
 *
 * Memory below the stack pointer is not necessarily unused: the stacks of fibers lie in pools and in
 * local arrays, with other stacks below them. So only empty memory is used: whole pages that were never
 * touched or are full of zeros, or the remains of a dead attach. It is wiped when the thread has its own
 * registers again. These places are tried in order:
 *
 *	low     the lowest pages of [stack]; if the surgeon dies, a signal handler that runs there has
 *	        room below it, as on any stack
 *	own     empty pages of the thread's own stack: [stack], or a mapping with a guard below and the
 *	        thread's control block above
 *	slack   the rest of the page behind an ELF's .bss, which belongs to nothing
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "shim.h"
#include "uapi.h"

#define PRESENT (1ull << 63)
#define GUARD (1ull << 58) /* Linux 6.15 */
#define LOW_PAGES 16u	   /* a smaller [stack] is in use down to its end */
#define MARGIN 2u	   /* empty pages above the lowest ones */
#define REACH 64u	   /* pages below rsp that are examined */
#define WORDS (PS_PAGE / sizeof(uint64_t))
#define ROP_WORDS 6u

static const char magic[] = "pagescan attach";

/* A mark in each frame, by which a later attach recognises the frame of a dead one. */
struct mark {
	char magic[16];
	int64_t tid;
	uint64_t chain;
};
#define CHAIN_LENGTH 32u /* bytes before rt_sigreturn(2) moves the stack pointer */

void ps_write_mark(const struct surgery *s, void *at, uint64_t chain)
{
	struct mark mark = {.tid = s->tid, .chain = chain};

	memcpy(mark.magic, magic, sizeof(mark.magic));
	memcpy(at, &mark, sizeof(mark));
}

/* Whether a thread may still return to a frame: it was stopped on its way there. */
static bool is_alive(const struct surgery *s, const struct mark *mark)
{
	struct surgery other = *s;
	uint64_t rsp = s->saved.rsp;
	char text[256], *at;

	if (mark->tid != s->tid) {
		other.tid = (pid_t)mark->tid;
		text[ps_read_file(&other, "syscall", text, sizeof(text) - 1)] = 0;
		if (!*text)
			return false;	 /* it no longer exists */
		at = strrchr(text, ' '); /* … sp pc */
		if (at)
			*at = 0;
		at = strrchr(text, ' ');
		if (!at)
			return true; /* it runs: unknown */
		rsp = strtoull(at, NULL, 16);
	}
	return rsp - mark->chain <= CHAIN_LENGTH;
}

/* Accepts zeros, and frames and six-word chains of dead attaches; anything else is in use. */
static bool is_empty(struct surgery *s, const uint64_t *words, size_t count)
{
	const struct gadgets *g = &s->gadgets;
	const char *at = memmem(words, count * sizeof(*words), magic, sizeof(magic));
	struct mark mark;

	if (at) {
		if ((const char *)(words + count) - at < (ptrdiff_t)sizeof(mark))
			return false;
		memcpy(&mark, at, sizeof(mark));
		s->garbage = true;
		return !is_alive(s, &mark);
	}
	for (size_t i = 0; i < count; i++) {
		if (!words[i])
			continue;
		if (!g->pop_rdi || count - i < ROP_WORDS || words[i] != g->pop_rdi ||
		    words[i + 2] != g->pop_rax)
			return false;
		s->garbage = true;
		i += ROP_WORDS - 1;
	}
	return true;
}

/* Whether whole pages are empty; a page that was never touched is not even read. */
static bool are_empty(struct surgery *s, uint64_t start, uint64_t end)
{
	uint64_t entries[REACH], words[WORDS];
	size_t count = (end - start) / PS_PAGE;

	s->garbage = false;
	if (!count || count > REACH ||
	    pread(s->pagemap, entries, count * 8, (off_t)(start / PS_PAGE * 8)) !=
		    (ssize_t)count * 8)
		return false;
	for (size_t i = 0; i < count; i++) {
		uint64_t at = start + i * PS_PAGE;

		if (entries[i] & (PS_PM_SWAPPED | GUARD))
			return false;
		if (entries[i] & PRESENT &&
		    (!ps_peek(s, at, words, sizeof(words)) || !is_empty(s, words, WORDS)))
			return false;
	}
	return true;
}

static bool offer(struct ps_place *ret, uint64_t start, uint64_t end, enum ps_method method)
{
	*ret = (struct ps_place){start, end, method};
	return true;
}

static bool place_low(struct surgery *s, uint64_t pages, struct ps_place *ret)
{
	uint64_t start = s->stack_start, size = pages * PS_PAGE;

	for (int turn = 0; start && turn < 4; turn++, start += size) {
		uint64_t end = start + size, above = end + MARGIN * PS_PAGE;

		if (s->saved.rsp >= start && s->saved.rsp < above)
			continue;
		if (are_empty(s, start, above))
			return offer(ret, start, end, PS_METHOD_SLACK);
	}
	return false;
}

/* glibc 2.42 and later have guards that are not separate mappings. */
static bool has_guard_below(struct surgery *s, const struct mapping *mapping, uint64_t low)
{
	uint64_t entries[256];
	struct mapping below;
	char name[64];

	if (ps_mapping_at(s, mapping->start - 1, &below, name, sizeof(name)) && !(below.flags & 7))
		return true;
	for (uint64_t at = low & ~(uint64_t)(PS_PAGE - 1); at > mapping->start;) {
		uint64_t count = (at - mapping->start) / PS_PAGE;

		if (count > 256)
			count = 256;
		at -= count * PS_PAGE;
		if (pread(s->pagemap, entries, count * 8, (off_t)(at / PS_PAGE * 8)) !=
		    (ssize_t)count * 8)
			return false;
		for (uint64_t i = 0; i < count; i++)
			if (entries[i] & GUARD)
				return true;
	}
	return false;
}

/* Finds the mapping of the thread's own stack, if rsp is in it. */
bool ps_own_stack(struct surgery *s, struct mapping *ret)
{
	uint64_t rsp = s->saved.rsp;
	char name[64];
	bool found = ps_mapping_at(s, rsp, ret, name, sizeof(name));

	ret->name = NULL;
	if (!found || !(ret->flags & PS_MAP_WRITE) || ret->flags & PS_MAP_SHARED)
		return false;
	if (!strcmp(name, "[stack]"))
		return true;
	return s->saved.fs_base > rsp && s->saved.fs_base < ret->end &&
	       has_guard_below(s, ret, rsp);
}

static bool place_own(struct surgery *s, uint64_t pages, struct ps_place *ret)
{
	uint64_t end = (s->saved.rsp - 128) & ~(uint64_t)(PS_PAGE - 1), size = pages * PS_PAGE;
	struct mapping stack;

	if (!ps_own_stack(s, &stack))
		return false;
	for (unsigned turn = 0; turn < REACH && end >= stack.start + size; turn++, end -= PS_PAGE)
		if (are_empty(s, end - size, end))
			return offer(ret, end - size, end, PS_METHOD_FRAME);
	return false;
}

static bool place_slack(struct surgery *s, uint64_t length, struct ps_place *ret)
{
	uint64_t words[WORDS], size = s->slack_end - s->slack;

	s->garbage = false;
	if (size < length || size > sizeof(words) || !ps_is_present(s, s->slack) ||
	    !ps_peek(s, s->slack, words, size) || !is_empty(s, words, size / 8))
		return false;
	return offer(ret, s->slack, s->slack_end, PS_METHOD_SLACK);
}

/* Finds room for a frame of the given size. */
bool ps_place_frame(struct surgery *s, uint64_t length, struct ps_place *ret)
{
	uint64_t pages = (length + PS_PAGE - 1) / PS_PAGE;

	return place_low(s, pages, ret) || place_own(s, pages, ret) || place_slack(s, length, ret);
}

/* Whether [low, end) of the thread's own stack is empty, and room for a signal's frame below it. */
bool ps_is_free_stack(struct surgery *s, const struct mapping *stack, uint64_t low, uint64_t end)
{
	uint64_t first = (low & ~(uint64_t)(PS_PAGE - 1)) - MARGIN * PS_PAGE;

	end = (end + PS_PAGE - 1) & ~(uint64_t)(PS_PAGE - 1);
	return first >= stack->start && are_empty(s, first, end);
}

void ps_wipe(const struct surgery *s, uint64_t start, uint64_t end)
{
	static const uint8_t zeros[PS_PAGE];

	for (; start < end; start += PS_PAGE)
		ps_poke(s, start, zeros, end - start < PS_PAGE ? end - start : PS_PAGE);
}

/* ---- before the stop ------------------------------------------------------------------------ */

#define ENOUGH 3584u /* bytes of slack that a frame with the whole vector state of AVX-512 needs */
#define START_OF_STACK 28 /* fields of stat */
#define START_OF_HEAP 47

static bool is_writable(struct surgery *s, uint64_t start, uint64_t end)
{
	struct mapping mapping;
	char name[64];

	return ps_mapping_at(s, start, &mapping, name, sizeof(name)) && end <= mapping.end &&
	       mapping.flags & PS_MAP_WRITE;
}

/*
 * Finds the rest of the page behind an ELF's .bss: mapped, and used by nothing. Without address
 * randomisation the heap may begin right behind the program's .bss.
 */
static void slack_of_elf(struct surgery *s, uint64_t first, uint64_t heap)
{
	uint64_t lowest = UINT64_MAX;
	Elf64_Phdr headers[32];
	Elf64_Ehdr head;

	if (!ps_is_present(s, first) || !ps_peek(s, first, &head, sizeof(head)) ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_phnum > 32 ||
	    !ps_peek(s, first + head.e_phoff, headers, head.e_phnum * sizeof(*headers)))
		return;
	for (int i = 0; i < head.e_phnum; i++)
		if (headers[i].p_type == PT_LOAD && headers[i].p_vaddr < lowest)
			lowest = headers[i].p_vaddr & ~(uint64_t)(PS_PAGE - 1);
	for (int i = 0; i < head.e_phnum; i++) {
		uint64_t end = first - lowest + headers[i].p_vaddr + headers[i].p_memsz;
		uint64_t page_end;

		if (headers[i].p_type != PT_LOAD || !(headers[i].p_flags & PF_W))
			continue;
		end = (end + 63) & ~(uint64_t)63;
		page_end = (end + PS_PAGE - 1) & ~(uint64_t)(PS_PAGE - 1);
		if (page_end - end > s->slack_end - s->slack &&
		    !(heap > end - 64 && heap < page_end) && is_writable(s, end, page_end)) {
			s->slack = end;
			s->slack_end = page_end;
		}
	}
}

static void find_stack(struct surgery *s)
{
	struct mapping mapping;
	char name[64];

	if (ps_mapping_at(s, ps_stat_field(s, START_OF_STACK), &mapping, name, sizeof(name)) &&
	    !strcmp(name, "[stack]") && mapping.end - mapping.start >= LOW_PAGES * PS_PAGE)
		s->stack_start = mapping.start;
}

void ps_find_places(struct surgery *s, const struct code *code, size_t count)
{
	uint64_t heap = ps_stat_field(s, START_OF_HEAP);

	find_stack(s);
	for (size_t i = 0; i < count && heap; i++) {
		if (s->slack_end - s->slack >= ENOUGH || ps_now_ns() > s->deadline)
			break;
		if (code[i].head && !code[i].no_slack)
			slack_of_elf(s, code[i].head, heap);
	}
}
#endif
