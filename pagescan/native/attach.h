/* SPDX-License-Identifier: MIT */
/* How far an attach came, and by which way: what the Python side turns into words. */
#ifndef PAGESCAN_ATTACH_H
#define PAGESCAN_ATTACH_H

enum ps_method {
	PS_METHOD_NONE,
	PS_METHOD_PLAIN, /* registers are restored by us: our death in between hurts the target */
};

enum ps_step {
	PS_STEP_NONE,
	PS_STEP_OPEN,    /* its memory or its threads could not be read */
	PS_STEP_GADGET,  /* no system call instruction where one may be used */
	PS_STEP_SECCOMP, /* its filter would see the call, and may not be suspended */
	PS_STEP_SEIZE,   /* PTRACE_SEIZE was refused */
	PS_STEP_STOP,    /* no thread stopped in time */
	PS_STEP_ABI,     /* it runs 32-bit code */
	PS_STEP_CALL,    /* userfaultfd(2) failed in the target */
	PS_STEP_TAKE,    /* pidfd_getfd(2) failed */
	PS_STEP_ARCH,    /* not written for this architecture */
	PS_STEP_DONE,
};

#endif
