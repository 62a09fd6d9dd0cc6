/* SPDX-License-Identifier: MIT */
/*
 * The self-restoring stacks: what makes the attach survive our own death at any instant.
 *
 * Before the thread is sent into a system call that is not its own, a stack is laid out below its red
 * zone, and rsp points to it. The call's instruction is followed by `ret`: if nobody stops the thread
 * any more, it returns into the stack, which puts everything back.
 *
 * frame (general). The stack is a signal frame of the kernel's, and `ret` goes to a restorer, which
 * calls rt_sigreturn(2): every register, the vector state and the signal mask come from the frame.
 *
 *	chain -> restorer | ucontext, registers, mask | siginfo | … | vector state
 *
 *	Without a restorer in the target: pop rax; ret | 15 | syscall; ret stands in front of it.
 *	The frame's uc_stack is invalid on purpose: rt_sigreturn ignores that, and the thread's real
 *	alternative stack, which cannot be known from outside, stays.
 *
 * rop (after -ERESTART_RESTARTBLOCK: nanosleep, poll, futex with a timeout). rt_sigreturn(2) would
 * make the call return EINTR, so only what the chain has changed is put back, word by word:
 *
 *	chain -> pop rdi | rdi | pop rax | number | ret imm | rip of the syscall instruction
 *
 *	rax, rdi, rsp and rip come back, and a system call destroys rcx and r11 anyway. ret imm steps
 *	over the red zone to where rsp was. The signal mask is not touched: nothing would restore it.
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
#define XSTATE_LEGACY_END 576u /* legacy area and header */
#define XSTATE_SOFTWARE 464u   /* bytes of the legacy area that are the software's */
#define XSTATE_MAX 16384u

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

/* What lies in the target's memory, from the pretcode or the words before it up to the second magic. */
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

/*
 * Whether [low, rsp) is memory that a signal frame may overwrite: the thread's own stack. That it is
 * in the same mapping as rsp is not enough: goroutines, fibers and ucontexts have theirs in the heap.
 */
static bool is_own_stack(const struct surgery *s, uint64_t low)
{
	const struct user_regs_struct *regs = &s->saved;
	uint64_t goroutine, bounds[2];
	struct area area;

	if (!ps_area_at(s, regs->rsp, &area) || low < area.start || !(area.flags & PS_MAP_WRITE))
		return false;
	if (!strcmp(area.name, "[stack]"))
		return low >= area.start + 8192; /* its lowest page may hold a slack frame */
	if (s->go_runtime)
		return ps_peek(s, regs->fs_base - 8, &goroutine, sizeof(goroutine)) &&
		       ps_peek(s, goroutine, bounds, sizeof(bounds)) && bounds[0] < bounds[1] &&
		       regs->rsp > bounds[0] && regs->rsp <= bounds[1] && low >= bounds[0];
	/* A thread of libc's: its control block is at the top of its stack's mapping. */
	return regs->fs_base > regs->rsp && regs->fs_base < area.end &&
	       (!area.name_length || !strncmp(area.name, "[anon", 5));
}

static bool write_chain(struct surgery *s, uint64_t at, const void *data, size_t length,
			uint64_t chain, enum ps_method method)
{
	if (!ps_poke(s, at, data, length))
		return false;
	s->wrote = at;
	s->wrote_length = length;
	s->chain = chain;
	s->call->method = method;
	return true;
}

/* The next instruction is, or just was, a system call: rcx and r11 are dead there. */
static bool at_syscall(const struct surgery *s)
{
	uint8_t code[2];

	if (s->saved.rip == s->gadgets.syscall_ret + 2)
		return true; /* a stopped target with the chain of an attach that died */
	/* Whatever orig_rax says: a signal may come right after the kernel has decided to restart. */
	return ps_peek(s, s->saved.rip, code, sizeof(code)) && code[0] == 0x0f && code[1] == 0x05;
}

static bool build_rop(struct surgery *s, bool restart)
{
	const struct user_regs_struct *regs = &s->saved;
	const struct gadgets *g = &s->gadgets;
	uint64_t top = regs->rsp - 8 - g->imm;
	uint64_t words[6] = {
		g->pop_rdi, regs->rdi,
		g->pop_rax, restart ? NR_RESTART_SYSCALL : regs->rax,
		g->ret_imm, restart ? regs->rip - 2 : regs->rip,
	};

	if (!g->pop_rdi || !g->pop_rax || !g->ret_imm || !is_own_stack(s, top - 128))
		return false;
	s->masked = false;
	return write_chain(s, top - 40, words, sizeof(words), top - 40, PS_METHOD_ROP);
}

/* Reads the vector state and turns it into what rt_sigreturn(2) takes: no longer than it must be. */
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
	if (is_restarted(from)) { /* the call is made again, in full: never EINTR */
		to->ip -= 2;
		to->ax = from->orig_rax;
	}
}

static bool build_frame(struct surgery *s, struct image *image, bool slack)
{
	uint64_t size = image->xstate_size;
	uint64_t top = slack ? s->slack_end : s->saved.rsp - RED_ZONE;
	uint64_t xstate = (top - size - 4) & ~(uint64_t)63;
	uint64_t frame_at = ((xstate - sizeof(struct signal_frame)) & ~(uint64_t)15) - 8;
	uint64_t low = frame_at - 16; /* room for the two words that stand in for a restorer */
	uint32_t magic2 = XSTATE_MAGIC2;
	size_t length = xstate + size + 4 - low;
	uint64_t *before = (uint64_t *)(void *)image->bytes;
	struct signal_frame *frame = (void *)(image->bytes + 16);

	if (top < size + 4096 || length > sizeof(image->bytes))
		return false;
	if (slack ? low < s->slack || !ps_slack_is_free(s) : !is_own_stack(s, low - 64))
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
	if (slack)
		strcpy(frame->info, ps_slack_signature());
	memcpy(image->bytes + (xstate - low), image->xstate, size);
	memcpy(image->bytes + (xstate - low) + size, &magic2, sizeof(magic2));
	s->masked = true;
	return write_chain(s, low, image->bytes, length, s->gadgets.restorer ? frame_at : low,
			   slack ? PS_METHOD_SLACK : PS_METHOD_FRAME);
}

/* Lays out a self-restoring stack for the stopped thread; false: only the plain way is left. */
bool ps_build_chain(struct surgery *s)
{
	const struct user_regs_struct *regs = &s->saved;
	bool restart_block = is_restarted(regs) && (int64_t)regs->rax == -ERESTART_RESTARTBLOCK;
	struct image image;

	s->chain = 0;
	if (s->plain_only || !s->gadgets.syscall_ret ||
	    !(s->gadgets.restorer || s->gadgets.pop_rax))
		return false;
	if ((restart_block || (!is_restarted(regs) && at_syscall(s))) &&
	    build_rop(s, restart_block))
		return true;
	return read_xstate(s, &image) &&
	       (build_frame(s, &image, false) || build_frame(s, &image, true));
}

/* A frame in slack is wiped once the thread has its own registers again: zero is how it is known. */
void ps_clear_chain(struct surgery *s)
{
	static const uint8_t zero[4096];

	if (s->call->method == PS_METHOD_SLACK && s->wrote_length <= sizeof(zero))
		ps_poke(s, s->wrote, zero, s->wrote_length);
}
#endif
