/* SPDX-License-Identifier: MIT */
/*
 * The self-restoring stacks: with them the target survives the death of the surgeon at any instant.
 *
 * Before the thread makes a system call that is not its own, a stack is laid out in empty memory
 * (shim_stack_x86_64.c), and rsp points to it. A `ret` follows the call's instruction: if nothing stops
 * the thread after the call, it returns into that stack, which restores everything.
 *
 * frame (general). The stack is a signal frame in the kernel's format, and `ret` leads to a restorer,
 * which calls rt_sigreturn(2): every register, the vector state and the signal mask come from the frame.
 *
 *	chain -> restorer | ucontext, registers, mask | siginfo | … | vector state
 *
 *	If the target has no restorer: pop rax; ret | 15 | syscall; ret comes before the frame.
 *	The frame's uc_stack is invalid on purpose: rt_sigreturn ignores it, and the thread keeps its real
 *	alternative stack, which cannot be read from outside.
 *
 * rop (after -ERESTART_RESTARTBLOCK: nanosleep, poll, futex with a timeout). rt_sigreturn(2) would
 * make the call return EINTR, so only the changed registers are restored, word by word:
 *
 *	chain -> pop rdi | rdi | pop rax | number | ret imm | rip of the syscall instruction
 *
 *	rax, rdi, rsp and rip are restored, and a system call destroys rcx and r11 anyway. ret imm skips
 *	the bytes up to the old rsp. The signal mask is not touched, because nothing would restore it.
 *
 * Layouts: arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h; Intel SDM on XSAVE.
 */
#define _GNU_SOURCE
#include "attach.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "shim.h"

#define RED_ZONE 128u
#define NR_RESTART_SYSCALL 219u
#define NR_RT_SIGRETURN 15u
#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

#define UC_FLAGS 7u	   /* FP_XSTATE, SIGCONTEXT_SS, STRICT_RESTORE_SS */
#define NO_SUCH_STACK 0x77 /* ss_flags that do_sigaltstack refuses */
#define XSTATE_MAGIC1 0x46505853u
#define XSTATE_MAGIC2 0x46505845u
#define XSTATE_HEADER 512u     /* offset of xfeatures in the image */
#define XSTATE_LEGACY_END 576u /* legacy mapping and header */
#define XSTATE_SOFTWARE 464u   /* bytes of the legacy mapping reserved for software */
#define XSTATE_MAX 16384u
#define ALIGNMENTS 128u /* the most bytes lost to them */

struct sigcontext_64 {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};

struct signal_frame {
	uint64_t pretcode;
	uint64_t uc_flags, uc_link;
	struct {
		uint64_t sp;
		int32_t flags, pad;
		uint64_t size;
	} uc_stack;
	struct sigcontext_64 context;
	uint64_t mask;
	char info[128];
};
_Static_assert(sizeof(struct sigcontext_64) == 256, "as the kernel lays it out");
_Static_assert(sizeof(struct signal_frame) == 440, "as the kernel lays it out");

/*
 * The bytes in the target's memory, from the pretcode or the words before it to the second magic.
 */
struct image {
	uint8_t bytes[2 * XSTATE_MAX];
	uint8_t xstate[XSTATE_MAX];
	uint32_t xstate_size;
};

static bool is_restarted(const struct user_regs_struct *regs)
{
	int64_t result = (int64_t)regs->rax;

	return (int64_t)regs->orig_rax >= 0 &&
	       (result == -ERESTARTSYS || result == -ERESTARTNOINTR || result == -ERESTARTNOHAND ||
		result == -ERESTART_RESTARTBLOCK);
}

static bool write_chain(struct surgery *s, uint64_t at, const void *data, size_t length,
			uint64_t chain, enum ps_method method)
{
	if (!ps_poke(s, at, data, length))
		return false;
	s->wrote = at;
	s->wrote_end = at + length;
	s->chain = chain;
	s->call->method = method;
	return true;
}

/*
 * Handles a thread that a dead attach has left on its chain, because the target is stopped: that
 * chain is used again, and the thread is left on it.
 */
static bool resume(struct surgery *s)
{
	const struct gadgets *g = &s->gadgets;
	struct user_regs_struct *regs = &s->saved;
	uint64_t first;

	if ((regs->rip != g->syscall_ret && regs->rip != g->syscall_ret + 2) ||
	    !ps_peek(s, regs->rsp, &first, sizeof(first)))
		return false;
	if (first != g->pop_rdi && first != g->restorer && first != g->pop_rax)
		return false;
	regs->rip = g->syscall_ret + 2; /* if it has not made that call yet, skip it */
	s->wrote = s->wrote_end = 0;
	s->chain = regs->rsp;
	s->masked = first != g->pop_rdi;
	s->call->method = s->masked ? PS_METHOD_FRAME : PS_METHOD_ROP;
	return true;
}

/* The kernel has just decided to restart: rip is on the call already. */
static bool is_at_restart(const struct surgery *s)
{
	uint8_t code[2];

	/* Ignore orig_rax: a signal may have come since. */
	return s->saved.rax == NR_RESTART_SYSCALL && ps_peek(s, s->saved.rip, code, sizeof(code)) &&
	       code[0] == 0x0f && code[1] == 0x05;
}

/* Far enough below the stack pointer that nothing is there. */
static bool build_rop(struct surgery *s, bool restart)
{
	const struct user_regs_struct *regs = &s->saved;
	const struct gadgets *g = &s->gadgets;
	struct mapping stack;
	uint64_t words[6] = {
		g->pop_rdi,	    regs->rdi, g->pop_rax,
		NR_RESTART_SYSCALL, 0,	       restart ? regs->rip - 2 : regs->rip,
	};

	if (!g->pop_rdi || !g->pop_rax || !ps_own_stack(s, &stack))
		return false;
	for (size_t i = 0; i < sizeof(g->ret_imm) / 8; i++) {
		uint8_t code[3];
		uint64_t low;

		words[4] = g->ret_imm[i];
		if (!words[4] || !ps_peek(s, words[4], code, sizeof(code)) || code[0] != 0xc2)
			continue;
		low = regs->rsp - 48u - (code[1] | (unsigned)code[2] << 8);
		if (!ps_is_free_stack(s, &stack, low, low + sizeof(words)))
			continue;
		s->masked = false;
		return write_chain(s, low, words, sizeof(words), low, PS_METHOD_ROP);
	}
	return false;
}

/* Reads the vector state and converts it, as short as possible, for rt_sigreturn(2). */
static bool read_xstate(const struct surgery *s, struct image *image)
{
	struct iovec io = {image->xstate, sizeof(image->xstate)};
	struct {
		uint32_t magic, extended_size;
		uint64_t features;
		uint32_t size, padding[7];
	} software;
	uint64_t features;

	if (ptrace(PTRACE_GETREGSET, s->tid, (void *)NT_X86_XSTATE, &io) < 0 ||
	    io.iov_len < XSTATE_LEGACY_END)
		return false;
	memcpy(&features, image->xstate + XSTATE_HEADER, sizeof(features));
	features |= 3; /* x87 and SSE are always restored */
	image->xstate_size = XSTATE_LEGACY_END;
	for (uint32_t bit = 2; bit < 63; bit++) {
		uint32_t size, offset, unused_c, unused_d;

		if (!(features >> bit & 1))
			continue;
		__cpuid_count(0xd, bit, size, offset, unused_c, unused_d);
		if (offset + size > image->xstate_size)
			image->xstate_size = offset + size;
	}
	if (image->xstate_size > io.iov_len)
		return false;
	memcpy(image->xstate + XSTATE_HEADER, &features, sizeof(features));
	memset(image->xstate + XSTATE_HEADER + 8, 0, XSTATE_LEGACY_END - XSTATE_HEADER - 8);
	memset(&software, 0, sizeof(software));
	software.magic = XSTATE_MAGIC1;
	software.extended_size = image->xstate_size + 4;
	software.features = features;
	software.size = image->xstate_size;
	memcpy(image->xstate + XSTATE_SOFTWARE, &software, sizeof(software));
	return true;
}

static void fill_context(struct sigcontext_64 *to, const struct user_regs_struct *from)
{
	to->r8 = from->r8;
	to->r9 = from->r9;
	to->r10 = from->r10;
	to->r11 = from->r11;
	to->r12 = from->r12;
	to->r13 = from->r13;
	to->r14 = from->r14;
	to->r15 = from->r15;
	to->di = from->rdi;
	to->si = from->rsi;
	to->bp = from->rbp;
	to->bx = from->rbx;
	to->dx = from->rdx;
	to->ax = from->rax;
	to->cx = from->rcx;
	to->sp = from->rsp;
	to->ip = from->rip;
	to->flags = from->eflags;
	to->cs = (uint16_t)from->cs;
	to->ss = (uint16_t)from->ss;
	if (is_restarted(from)) { /* the whole call is made again: never EINTR */
		to->ip -= 2;
		to->ax = from->orig_rax;
	}
}

static bool build_frame(struct surgery *s, struct image *image)
{
	uint64_t size = image->xstate_size, xstate, frame_at, low;
	uint64_t *before = (uint64_t *)(void *)image->bytes;
	struct signal_frame *frame = (void *)(image->bytes + 16);
	uint32_t magic2 = XSTATE_MAGIC2;
	struct ps_place place;
	size_t length;

	if (!ps_place_frame(s, size + sizeof(struct signal_frame) + ALIGNMENTS, &place))
		return false;
	xstate = (place.end - size - 4) & ~(uint64_t)63;
	frame_at = ((xstate - sizeof(struct signal_frame)) & ~(uint64_t)15) - 8;
	low = frame_at - 16; /* room for the two words that replace a restorer */
	length = xstate + size + 4 - low;
	if (low < place.start || length > sizeof(image->bytes))
		return false;
	memset(image->bytes, 0, length);
	if (s->gadgets.restorer) {
		frame->pretcode = s->gadgets.restorer;
	} else {
		before[0] = s->gadgets.pop_rax;
		before[1] = NR_RT_SIGRETURN;
		frame->pretcode = s->gadgets.syscall_ret;
	}
	frame->uc_flags = UC_FLAGS;
	frame->uc_stack.flags = NO_SUCH_STACK;
	fill_context(&frame->context, &s->saved);
	frame->context.fpstate = xstate;
	frame->mask = s->mask;
	ps_write_mark(s, frame->info, frame_at);
	memcpy(image->bytes + (xstate - low), image->xstate, size);
	memcpy(image->bytes + (xstate - low) + size, &magic2, sizeof(magic2));
	s->masked = true;
	if (s->garbage)
		ps_wipe(s, place.start, place.end);
	return write_chain(s, low, image->bytes, length, s->gadgets.restorer ? frame_at : low,
			   place.method);
}

/* Lays out a self-restoring stack for the stopped thread; false: only the plain method remains. */
bool ps_build_chain(struct surgery *s)
{
	const struct user_regs_struct *regs = &s->saved;
	bool restart_block = is_restarted(regs) && (int64_t)regs->rax == -ERESTART_RESTARTBLOCK;
	struct image image;

	s->chain = 0;
	if (s->plain_only || !s->gadgets.syscall_ret ||
	    !(s->gadgets.restorer || s->gadgets.pop_rax))
		return false;
	if (resume(s) || ((restart_block || (!is_restarted(regs) && is_at_restart(s))) &&
			  build_rop(s, restart_block)))
		return true;
	return read_xstate(s, &image) && build_frame(s, &image);
}

/* Wipes that stack once the thread has its own registers again: the memory was empty before. */
void ps_clear_chain(struct surgery *s)
{
	ps_wipe(s, s->wrote, s->wrote_end);
	s->wrote = s->wrote_end = 0;
}
#endif
