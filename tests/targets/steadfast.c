/* SPDX-License-Identifier: MIT */
/*
 * A target that checks itself: steadfast KIND STATUS
 *
 * Each kind does one thing over and over, in rounds, and counts every difference from what must be:
 * in a register, a flag, a byte below the stack, the signal mask, the alternative stack, the result
 * or the duration of a system call. STATUS is a file with the counters, which the test maps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "status.h"

#define LONG_NAP_MS 400
#define LATE_MS 100 /* past the deadline; the machine may be busy */

static volatile struct status *status;
static pthread_t main_thread;
static int channel[2], word;
static unsigned nap_ms = 20;

static void fault(uint64_t code)
{
	status->faults++;
	status->last_fault = code;
}

static uint64_t now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void nap(unsigned us)
{
	struct timespec left = {0, us * 1000L};

	while (nanosleep(&left, &left))
		;
}

/* ---- every register ------------------------------------------------------------------------ */

/* The values that assembly loads, keeps for a while, and stores again. */
struct registers {
	uint8_t vector[32][64];
	uint64_t mask[8];
	double x87[4];
	uint64_t general[16];  /* in the order of the machine's numbers; [4] is rsp */
	uint64_t red_zone[16]; /* [0] lies just below rsp */
	uint64_t flags;
	uint32_t mxcsr;
	uint16_t control;
	uint16_t pad;
	uint64_t wide; /* AVX-512 */
};

struct registers given __attribute__((aligned(64)));
struct registers found __attribute__((aligned(64)));
uint64_t stack_pointer, turns;

#define EACH_8(M, a) M(a##0) M(a##1) M(a##2) M(a##3) M(a##4) M(a##5) M(a##6) M(a##7)
#define EACH_16(M) EACH_8(M, ) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define EACH_32(M)                                                                                 \
	EACH_16(M)                                                                                 \
	M(16)                                                                                      \
	M(17) M(18) M(19) M(20) M(21) M(22) M(23) M(24) M(25) M(26) M(27) M(28) M(29) M(30) M(31)
#define LOAD_Z(n) "vmovdqu64 64*" #n "(%rax), %zmm" #n "\n"
#define SAVE_Z(n) "vmovdqu64 %zmm" #n ", 64*" #n "(%rax)\n"
#define LOAD_Y(n) "vmovdqu 64*" #n "(%rax), %ymm" #n "\n"
#define SAVE_Y(n) "vmovdqu %ymm" #n ", 64*" #n "(%rax)\n"
#define LOAD_K(n) "kmovq 2048+8*" #n "(%rax), %k" #n "\n"
#define SAVE_K(n) "kmovq %k" #n ", 2048+8*" #n "(%rax)\n"
#define LOAD_RED(n) "mov given+2272+8*" #n "(%rip), %rax\n mov %rax, -8-8*" #n "(%rsp)\n"
#define SAVE_RED(n) "mov -8-8*" #n "(%rsp), %rax\n mov %rax, found+2272+8*" #n "(%rip)\n"
#define LOAD_R(n, r) "mov given+2144+8*" #n "(%rip), %" #r "\n"
#define SAVE_R(n, r) "mov %" #r ", found+2144+8*" #n "(%rip)\n"

/* Loads `given`, makes `turns` turns of a loop that changes no flag, stores to `found`. */
void hold(void);
__asm__(".text\n.globl hold\nhold:\n"
	"push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
	"sub $520, %rsp\n"
	"mov %rsp, stack_pointer(%rip)\n"
	"lea given(%rip), %rax\n"
	"ldmxcsr 2408(%rax)\n fldcw 2412(%rax)\n"
	"fldl 2112(%rax)\n fldl 2120(%rax)\n fldl 2128(%rax)\n fldl 2136(%rax)\n"
	"cmpq $0, 2416(%rax)\n je 1f\n" EACH_32(LOAD_Z) EACH_8(
		LOAD_K, ) "jmp 2f\n"
			  "1:\n" EACH_16(LOAD_Y) "2:\n" EACH_16(LOAD_RED) LOAD_R(3, rbx) LOAD_R(
				  2, rdx) LOAD_R(6, rsi) LOAD_R(7, rdi) LOAD_R(5, rbp) LOAD_R(8, r8)
				  LOAD_R(9, r9) LOAD_R(10, r10) LOAD_R(11, r11) LOAD_R(
					  12, r12) LOAD_R(13, r13) LOAD_R(14, r14)
					  LOAD_R(15, r15) "mov turns(%rip), %rcx\n" LOAD_R(
						  0,
						  rax) "std\n stc\n"
						       "3: lea -1(%rcx), %rcx\n jrcxz 4f\n jmp "
						       "3b\n4:\n" /* none of these changes a flag */
	SAVE_R(0, rax) SAVE_R(1, rcx) SAVE_R(3, rbx) SAVE_R(2, rdx) SAVE_R(6, rsi) SAVE_R(7, rdi)
		SAVE_R(5, rbp) SAVE_R(4, rsp) SAVE_R(8, r8) SAVE_R(9, r9) SAVE_R(10, r10) SAVE_R(
			11, r11) SAVE_R(12, r12) SAVE_R(13, r13) SAVE_R(14, r14)
			SAVE_R(15, r15) "mov stack_pointer(%rip), %rsp\n" EACH_16(
				SAVE_RED) "lea -128(%rsp), %rsp\n pushfq\n pop found+2400(%rip)\n "
					  "lea 128(%rsp), %rsp\n cld\n"
					  "lea found(%rip), %rax\n"
					  "cmpq $0, given+2416(%rip)\n je 5f\n" EACH_32(SAVE_Z)
						  EACH_8(SAVE_K, ) "jmp 6f\n"
								   "5:\n" EACH_16(
									   SAVE_Y) "6: vzeroupper\n"
										   "stmxcsr "
										   "2408(%rax)\n "
										   "fnstcw "
										   "2412(%rax)\n"
										   "fstpl "
										   "2136(%rax)\n "
										   "fstpl "
										   "2128(%rax)\n "
										   "fstpl "
										   "2120(%rax)\n "
										   "fstpl "
										   "2112(%rax)\n"
										   "fninit\n push "
										   "$0x1f80\n "
										   "ldmxcsr "
										   "(%rsp)\n add "
										   "$528, %rsp\n"
										   "pop %r15\n pop "
										   "%r14\n pop "
										   "%r13\n pop "
										   "%r12\n pop "
										   "%rbp\n pop "
										   "%rbx\n ret\n");

static void prepare_registers(bool wide)
{
	uint8_t *bytes = (uint8_t *)&given;

	_Static_assert(offsetof(struct registers, general) == 2144, "as the assembly has it");
	_Static_assert(offsetof(struct registers, wide) == 2416, "as the assembly has it");
	for (size_t i = 0; i < sizeof(given); i++)
		bytes[i] = (uint8_t)(i * 151 + 7);
	for (int i = 0; i < 4; i++)
		given.x87[i] = 1.5 - i;
	given.mxcsr = 0x9fc0; /* denormals are zero, flush to zero: not the default */
	given.control = 0x027f;
	given.wide = wide;
}

static void check_registers(uint64_t spin)
{
	int vectors = given.wide ? 32 : 16;
	size_t width = given.wide ? 64 : 32;

	turns = spin;
	memset(&found, 0, sizeof(found));
	hold();
	for (int i = 0; i < vectors; i++)
		if (memcmp(given.vector[i], found.vector[i], width))
			fault(100 + (uint64_t)i);
	if (given.wide && memcmp(given.mask, found.mask, sizeof(given.mask)))
		fault(140);
	if (memcmp(given.x87, found.x87, sizeof(given.x87)))
		fault(141);
	for (int i = 0; i < 16; i++) {
		uint64_t want = i == 1 ? 0 : i == 4 ? stack_pointer : given.general[i];

		if (found.general[i] != want)
			fault(200 + (uint64_t)i);
		if (given.red_zone[i] != found.red_zone[i])
			fault(220 + (uint64_t)i);
	}
	if ((found.flags & 0x401) != 0x401) /* direction and carry */
		fault(250);
	if (found.mxcsr != given.mxcsr || found.control != given.control)
		fault(251);
}

static void handle(int signal)
{
	status->signals++;
	(void)signal;
}

/*
 * Registers, with a mask and an alternative stack that must stay. Storm: with signals all the time.
 */
static void registers(bool wide, bool storm)
{
	static char stack[1 << 16];
	stack_t here = {.ss_sp = stack, .ss_size = sizeof(stack)}, then;
	struct itimerval often = {{0, 700}, {0, 700}};
	sigset_t blocked, mask;

	prepare_registers(wide);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	sigaddset(&blocked, SIGWINCH);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	sigaltstack(&here, NULL);
	if (storm)
		setitimer(ITIMER_REAL, &often, NULL);
	for (;; status->rounds++) {
		check_registers(30000);
		pthread_sigmask(SIG_BLOCK, NULL, &mask);
		for (int n = 1; n < 64; n++)
			if (n != 32 && n != 33 && sigismember(&mask, n) != sigismember(&blocked, n))
				fault(300 + (uint64_t)n);
		sigaltstack(NULL, &then);
		if (then.ss_sp != here.ss_sp || then.ss_size != here.ss_size || then.ss_flags)
			fault(399);
	}
}

/* Numbered signals, queued: each must arrive once, in order. */
static void handle_numbered(int signal, siginfo_t *info, void *context)
{
	if (info->si_value.sival_int != (int)status->signals)
		fault(700);
	status->signals++;
	(void)signal;
	(void)context;
}

static void *send_numbered(void *unused)
{
	union sigval value = {0};

	for (;; value.sival_int++) {
		uint64_t begun = now_ns();

		while (value.sival_int - (int)status->signals > 100) {
			nap(200);
			if (now_ns() - begun > 2000000000u) {
				status->lost++;
				begun = now_ns();
			}
		}
		if (pthread_sigqueue(main_thread, SIGRTMIN, value))
			fault(701);
		nap(100);
	}
	return unused;
}

/* ---- a stack in the heap, between other data ------------------------------------------------- */

static uint8_t *neighbour;
static bool naps; /* its thread sleeps there instead of computing */
#define NEIGHBOUR 16384

/* Last in .bss, so that most of a page follows it. */
static volatile char last[64] __attribute__((section(".bss.zz"), aligned(4096)));

/* The bytes behind each ELF's .bss, which are unused elsewhere: this program uses them. */
static struct {
	uint8_t *at;
	size_t length;
} claimed[8];
static int claims;

static int claim(struct dl_phdr_info *info, size_t size, void *unused)
{
	if (strstr(info->dlpi_name, "/ld-") || strstr(info->dlpi_name, "vdso"))
		return 0; /* the loader's own */
	for (int i = 0; i < info->dlpi_phnum && claims < 8; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t end = info->dlpi_addr + part->p_vaddr + part->p_memsz;

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_W) || end % 4096 == 0)
			continue;
		claimed[claims].at = (uint8_t *)end;
		claimed[claims].length = 4096 - end % 4096;
		memset(claimed[claims].at, 0x5a, claimed[claims].length);
		claims++;
	}
	(void)size;
	(void)unused;
	return 0;
}

static void on_small_stack(void)
{
	for (;; status->rounds++) {
		struct timespec left = {0, 3000000};

		for (volatile int i = 0; i < 20000 && !naps; i++)
			;
		if (naps && syscall(SYS_nanosleep, &left, &left))
			status->interrupted++;
		for (int i = 0; i < NEIGHBOUR; i++)
			if (neighbour[i] != 0xa5)
				fault(400);
		for (int n = 0; n < claims; n++)
			for (size_t i = 0; i < claimed[n].length; i++)
				if (claimed[n].at[i] != 0x5a)
					fault(401);
	}
}

/* Behind NEIGHBOUR bytes of data, in `room`. */
static void small_stack(void *room)
{
	static ucontext_t there, here;

	last[0] = 1;
	syscall(SYS_gettid); /* a later search would need more room than such a stack has */
	neighbour = room;
	memset(neighbour, 0xa5, NEIGHBOUR);
	getcontext(&there);
	there.uc_stack.ss_sp = neighbour + NEIGHBOUR;
	there.uc_stack.ss_size = 1024;
	there.uc_link = &here;
	makecontext(&there, on_small_stack, 0);
	swapcontext(&here, &there);
}

/*
 * Stacks in one pool, without guards. The kernel puts the pool right below the memory with the main
 * thread's control block, and makes both one mapping.
 */
static void fiber_of_a_pool(void)
{
	uint8_t *pool =
		mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	small_stack(pool + (1 << 20) - NEIGHBOUR - 1024);
}

/* Stacks in an array of a function: other stacks, and the frames in use, lie below. */
__attribute__((noinline)) static void fiber_of_an_array(void)
{
	uint8_t stacks[4 * NEIGHBOUR];

	memset(stacks, 0, sizeof(stacks));
	small_stack(stacks + NEIGHBOUR);
	__asm__ volatile("" : : "r"(stacks) : "memory");
}

/* ---- a restartable sequence ----------------------------------------------------------------- */

struct sequence {
	uint32_t version, flags;
	uint64_t start, length, abort;
} __attribute__((aligned(32)));
struct sequence sequence;
extern char sequence_start[], sequence_end[], sequence_abort[];

/* A long sequence; if interrupted anywhere, it must end in its abort handler: true. */
__attribute__((noinline)) static bool run_sequence(volatile char *area)
{
	int aborted;

	__asm__ volatile(".globl sequence_start, sequence_end, sequence_abort\n"
			 "lea sequence(%%rip), %%rax\n mov %%rax, 8(%1)\n"
			 "sequence_start: mov $200000, %%ecx\n"
			 "1: dec %%ecx\n jnz 1b\n mov $0, %0\n"
			 "sequence_end: jmp 2f\n"
			 ".byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n"
			 "sequence_abort: mov $1, %0\n2:\n"
			 : "=&r"(aborted)
			 : "r"(area)
			 : "rax", "rcx", "memory", "cc");
	return aborted;
}

/* How often another thread has had the processor, stops included. */
static uint64_t switches(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)(usage.ru_nvcsw + usage.ru_nivcsw);
}

static void restartable(void)
{
	volatile char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	sequence = (struct sequence){
		.start = (uint64_t)sequence_start,
		.length = (uint64_t)(sequence_end - sequence_start),
		.abort = (uint64_t)sequence_abort,
	};
	if (!__rseq_size)
		fault(450);
	for (;; status->rounds++) {
		uint64_t before = switches();

		if (!run_sequence(area) && switches() != before)
			status->unaborted++;
	}
}

/* ---- calls with a deadline ------------------------------------------------------------------ */

/* nanosleep(2) of the 32-bit ABI: number 162; it is restarted by number 0. */
static int nap_by_interrupt(void)
{
	static int32_t *times;
	int result;

	if (!times)
		times = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	times[0] = 0;
	times[1] = (int32_t)nap_ms * 1000000;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(162), "b"(times), "c"(times + 2)
			 : "memory", "r8", "r9", "r10", "r11");
	errno = result < 0 ? -result : 0;
	return result < 0 ? -1 : 0;
}

static int timed_call(const char *kind, uint64_t begun)
{
	struct timespec period = {0, nap_ms * 1000000L}, left;
	struct timeval limit = {0, nap_ms * 1000L};
	struct pollfd file = {channel[0], POLLIN, 0};
	struct epoll_event event;
	static int poller = -1;
	uint64_t end = begun + nap_ms * 1000000ul;

	if (!strcmp(kind, "int80"))
		return nap_by_interrupt();
	if (!strcmp(kind, "nanosleep"))
		return (int)syscall(SYS_nanosleep, &period, &left);
	if (!strcmp(kind, "clock-relative"))
		return (int)syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &period, &left);
	if (!strcmp(kind, "clock-absolute")) {
		period = (struct timespec){(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
		return (int)syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &period,
				    NULL);
	}
	if (!strcmp(kind, "poll-timeout"))
		return poll(&file, 1, (int)nap_ms);
	if (!strcmp(kind, "ppoll-timeout"))
		return ppoll(&file, 1, &period, NULL);
	if (!strcmp(kind, "select-timeout"))
		return select(0, NULL, NULL, NULL, &limit);
	if (!strcmp(kind, "futex-timeout")) {
		int result = (int)syscall(SYS_futex, &word, FUTEX_WAIT, word, &period, NULL, 0);

		return result < 0 && errno == ETIMEDOUT ? 0 : result;
	}
	if (poller < 0)
		poller = epoll_create1(0);
	return epoll_wait(poller, &event, 1, (int)nap_ms);
}

static void deadlines(const char *kind)
{
	for (;; status->rounds++) {
		uint64_t begun = now_ns();
		int result = timed_call(kind, begun), error = errno;
		uint64_t took = now_ns() - begun;

		if (result < 0 && error == EINTR)
			status->interrupted++;
		else if (result)
			fault(500 + (uint64_t)error);
		else if (took + 300000 < nap_ms * 1000000ul)
			fault(501);
		if (took > (nap_ms + LATE_MS) * 1000000ul)
			status->late++;
	}
}

/* ---- calls that wait for another thread ------------------------------------------------------ */

static void *write_bytes(void *unused)
{
	for (uint8_t byte = 0;; byte++) {
		nap(3000);
		if (write(channel[1], &byte, 1) != 1)
			fault(600);
	}
	return unused;
}

static void *wake_up(void *unused)
{
	for (;;) {
		nap(3000);
		__atomic_add_fetch(&word, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &word, FUTEX_WAKE, 9, NULL, NULL, 0);
	}
	return unused;
}

/*
 * One signal per wait of the main thread, once it is in the call: its current system call is the
 * wait.
 */
static volatile bool waiting;
static long waits_in;

static bool is_in_call(void)
{
	char path[64], text[64];
	ssize_t length;
	int file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", getpid());
	file = open(path, O_RDONLY | O_CLOEXEC);
	length = read(file, text, sizeof(text) - 1);
	close(file);
	text[length > 0 ? length : 0] = 0;
	return atol(text) == waits_in;
}

static void *send_signals(void *unused)
{
	for (;;) {
		uint64_t round = status->rounds, sent;

		while (!waiting || !is_in_call())
			nap(200);
		nap(1000);
		waiting = false;
		pthread_kill(main_thread, SIGUSR1);
		for (sent = now_ns(); status->rounds == round;) {
			nap(500);
			if (now_ns() - sent > 2000000000u) {
				status->lost++;
				pthread_kill(main_thread, SIGUSR1);
				sent = now_ns();
			}
		}
	}
	return unused;
}

static void wait_for_bytes(const char *kind)
{
	struct epoll_event event = {EPOLLIN, {0}};
	struct pollfd file = {channel[0], POLLIN, 0};
	int poller = epoll_create1(0);
	uint8_t expected = 0, byte;

	epoll_ctl(poller, EPOLL_CTL_ADD, channel[0], &event);
	while (true) {
		int ready = *kind == 'p'   ? poll(&file, 1, -1)
			    : *kind == 'e' ? epoll_wait(poller, &event, 1, -1)
					   : 1;

		if (ready < 0 && errno == EINTR) {
			status->interrupted++;
			continue;
		}
		if (ready != 1 || read(channel[0], &byte, 1) != 1 || byte != expected++)
			fault(610);
		status->rounds++;
	}
}

static void wait_for_wake_up(void)
{
	for (;; status->rounds++) {
		int value = __atomic_load_n(&word, __ATOMIC_SEQ_CST);

		if (syscall(SYS_futex, &word, FUTEX_WAIT, value, NULL, NULL, 0) &&
		    errno != EAGAIN) {
			if (errno == EINTR)
				status->interrupted++;
			else
				fault(620);
		} else if (__atomic_load_n(&word, __ATOMIC_SEQ_CST) == value) {
			fault(621);
		}
	}
}

static void wait_for_child(void)
{
	for (;; status->rounds++) {
		pid_t child = fork();
		int how;

		if (!child) {
			nap(3000);
			_exit(7);
		}
		if (wait4(child, &how, 0, NULL) != child || WEXITSTATUS(how) != 7)
			fault(630);
	}
}

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void *call_at_door(void *unused)
{
	for (;;) {
		int door = socket(AF_UNIX, SOCK_STREAM, 0);

		nap(3000);
		if (connect(door, (struct sockaddr *)&address, sizeof(address)))
			fault(640);
		close(door);
	}
	return unused;
}

static void wait_for_caller(void)
{
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	pthread_t thread;

	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "steadfast-%d", getpid());
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 8))
		fault(641);
	pthread_create(&thread, NULL, call_at_door, NULL);
	for (;; status->rounds++) {
		int caller = accept(listener, NULL, NULL);

		if (caller < 0)
			fault(642);
		close(caller);
	}
}

static void wait_for_signal(const char *kind)
{
	sigset_t usr1, before, mask;
	pthread_t thread;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	if (strcmp(kind, "pause"))
		pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	waits_in = !strcmp(kind, "pause")	 ? SYS_pause
		   : !strcmp(kind, "sigsuspend") ? SYS_rt_sigsuspend
						 : SYS_rt_sigtimedwait;
	pthread_create(&thread, NULL, send_signals, NULL);
	for (;; status->rounds++) {
		uint64_t handled = status->signals;
		int result;

		waiting = true;
		if (waits_in == SYS_rt_sigtimedwait) {
			while ((result = (int)syscall(waits_in, &usr1, NULL, NULL, 8)) < 0 &&
			       errno == EINTR)
				status->interrupted++;
			if (result != SIGUSR1)
				fault(650);
			continue;
		}
		result = waits_in == SYS_pause ? pause() : sigsuspend(&before);
		if (result != -1 || errno != EINTR)
			fault(651);
		if (status->signals == handled)
			fault(652);
		pthread_sigmask(SIG_SETMASK, NULL, &mask);
		if (sigismember(&mask, SIGUSR1) != (waits_in != SYS_pause) ||
		    sigismember(&mask, SIGTERM))
			fault(653);
	}
}

/* ---- code that differs from its file -------------------------------------------- */

/* First in .text, so that a search finds it first in a static program. */
__asm__(".pushsection .text.unlikely,\"ax\"\n.globl bait\nbait: syscall\n ret\n.popsection\n");
extern unsigned char bait[];

static void patch_bait(void)
{
	char *at = (char *)((uintptr_t)bait & ~4095ul);

	if (mprotect(at, 8192, PROT_READ | PROT_WRITE | PROT_EXEC))
		fault(800);
	bait[2] = 0xcc; /* int3 */
	mprotect(at, 8192, PROT_READ | PROT_EXEC);
}

/* ---- which -------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = handle};
	struct sigaction storm = {.sa_handler = handle, .sa_flags = SA_RESTART};
	const char *kind = argc == 3 ? argv[1] : "";
	struct sigaction numbered = {.sa_sigaction = handle_numbered,
				     .sa_flags = SA_RESTART | SA_SIGINFO};
	char timed[32];
	pthread_t thread;
	int file;

	if (argc != 3)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (status == MAP_FAILED || pipe(channel))
		return 2;
	close(file);
	main_thread = pthread_self();
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGALRM, &storm, NULL);
	sigaction(SIGRTMIN, &numbered, NULL);
	if (!strncmp(kind, "registers", 9))
		registers(!strcmp(kind, "registers-512") && __builtin_cpu_supports("avx512bw"),
			  false);
	if (!strcmp(kind, "patched")) {
		patch_bait();
		registers(false, false);
	}
	if (!strcmp(kind, "signal-storm"))
		registers(__builtin_cpu_supports("avx512bw"), true);
	if (!strcmp(kind, "signal-queue")) {
		pthread_create(&thread, NULL, send_numbered, NULL);
		registers(__builtin_cpu_supports("avx512bw"), false);
	}
	if (!strcmp(kind, "signal-nap")) { /* each signal ends the nap it falls into */
		struct timespec period = {0, 2000000};

		pthread_create(&thread, NULL, send_numbered, NULL);
		for (;; status->rounds++)
			nanosleep(&period, NULL);
	}
	if (!strcmp(kind, "small-stack") || !strcmp(kind, "no-slack")) {
		if (*kind == 'n')
			dl_iterate_phdr(claim, NULL);
		small_stack(malloc(NEIGHBOUR + 1024));
	}
	naps = strstr(kind, "-nap");
	if (!strncmp(kind, "fiber-pool", 10))
		fiber_of_a_pool();
	if (!strncmp(kind, "fiber-array", 11))
		fiber_of_an_array();
	if (!strcmp(kind, "rseq"))
		restartable();
	if (!strcmp(kind, "wait4"))
		wait_for_child();
	if (!strcmp(kind, "accept"))
		wait_for_caller();
	if (!strcmp(kind, "pause") || !strncmp(kind, "sig", 3))
		wait_for_signal(kind);
	if (!strcmp(kind, "futex")) {
		pthread_create(&thread, NULL, wake_up, NULL);
		wait_for_wake_up();
	}
	if (!strcmp(kind, "read") || !strcmp(kind, "poll") || !strcmp(kind, "epoll")) {
		pthread_create(&thread, NULL, write_bytes, NULL);
		wait_for_bytes(kind);
	}
	snprintf(timed, sizeof(timed), "%s", kind);
	if (strlen(timed) > 5 && !strcmp(timed + strlen(timed) - 5, "-long")) {
		timed[strlen(timed) - 5] = 0;
		nap_ms = LONG_NAP_MS;
	}
	deadlines(timed);
}
