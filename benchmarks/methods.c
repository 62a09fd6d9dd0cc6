/* SPDX-License-Identifier: MIT */
/*
 * methods METHOD BYTES: one process that tracks its own writes, in one of these ways:
 *
 *	none		not at all
 *	async		userfaultfd, asynchronous write-protect; PAGEMAP_SCAN gets and protects
 *	uffd		userfaultfd write-protect, resolved by a thread that keeps a list
 *	mprotect	read-only memory, and a SIGSEGV handler that keeps a list
 *	soft-dirty	clear_refs, and the bits of /proc/self/pagemap
 *
 * Each line "PERCENT" is one round: stores to that percentage of the pages, scattered, then a look,
 * which returns the number of written pages and protects all again: {"write_ns", "look_ns",
 * "pages", "found"}.
 */
#define _GNU_SOURCE
#include "answer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u
#define VEC 512

/* linux/userfaultfd.h, as of Linux 6.7. */
struct uffd_api {
	uint64_t api, features, ioctls;
};
struct uffd_register {
	uint64_t start, len, mode, ioctls;
};
struct uffd_protect {
	uint64_t start, len, mode;
};
struct uffd_msg {
	uint8_t event, pad[7];
	uint64_t flags, address, rest;
};
#define UFFD_API _IOWR(0xAA, 0x3F, struct uffd_api)
#define UFFD_REGISTER _IOWR(0xAA, 0, struct uffd_register)
#define UFFD_PROTECT _IOWR(0xAA, 6, struct uffd_protect)
#define UFFD_MODE_WP 2
#define UFFD_PAGEFAULT_FLAG_WP 1
#define UFFD_WP_ASYNC 0x8000
#define SOFT_DIRTY (1ull << 55)

static unsigned char *memory;
static size_t bytes, pages;
static int uffd = -1, pagemap, clear_refs;
/* The list that some methods have to keep themselves. */
static uint32_t *list;
static volatile size_t listed;

static void fail(const char *what)
{
	answer("{\"error\": \"%s: %s\"}\n", what, strerror(errno));
	exit(1);
}

/* ---- userfaultfd ---- */

static void uffd_protect(uint64_t start, uint64_t len, uint64_t mode)
{
	struct uffd_protect arg = {start, len, mode};

	if (ioctl(uffd, UFFD_PROTECT, &arg))
		fail("UFFDIO_WRITEPROTECT");
}

static void uffd_begin(uint64_t features)
{
	struct uffd_api api = {.api = 0xAA, .features = features};
	struct uffd_register reg = {(uintptr_t)memory, bytes, UFFD_MODE_WP, 0};

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
	if (uffd < 0 || ioctl(uffd, UFFD_API, &api) || ioctl(uffd, UFFD_REGISTER, &reg))
		fail("userfaultfd");
	uffd_protect(reg.start, reg.len, 1);
}

static void async_begin(void)
{
	uffd_begin(UFFD_WP_ASYNC);
}

static size_t async_look(void)
{
	static struct bench_region vec[VEC];
	uint64_t at = (uintptr_t)memory, end = at + bytes;
	size_t found = 0;

	while (at < end) {
		struct bench_scan arg = {
			.size = sizeof(arg),
			.flags = BENCH_WP_MATCHING,
			.start = at,
			.end = end,
			.vec = (uintptr_t)vec,
			.vec_len = VEC,
			.mask = BENCH_WRITTEN,
			.returned = BENCH_WRITTEN,
		};
		int count = ioctl(pagemap, BENCH_SCAN, &arg);

		if (count < 0)
			fail("PAGEMAP_SCAN");
		for (int i = 0; i < count; i++)
			found += (vec[i].end - vec[i].start) / PAGE;
		at = count && vec[count - 1].end > arg.walk_end ? vec[count - 1].end : arg.walk_end;
	}
	return found;
}

static void *resolve(void *unused)
{
	struct uffd_msg msg;

	/* The page is on the list before its writer goes on. */
	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		uint64_t at = msg.address & ~(uint64_t)(PAGE - 1);

		if (!(msg.flags & UFFD_PAGEFAULT_FLAG_WP))
			continue;
		list[listed++] = (uint32_t)((at - (uintptr_t)memory) / PAGE);
		uffd_protect(at, PAGE, 0);
	}
	return unused;
}

static void uffd_start(void)
{
	pthread_t thread;

	uffd_begin(0);
	pthread_create(&thread, NULL, resolve, NULL);
}

static size_t uffd_look(void)
{
	size_t found = listed;

	listed = 0;
	uffd_protect((uintptr_t)memory, bytes, 1);
	return found;
}

/* ---- mprotect ---- */

static void on_fault(int number, siginfo_t *info, void *unused)
{
	uint64_t at = (uint64_t)info->si_addr & ~(uint64_t)(PAGE - 1);

	(void)number;
	(void)unused;
	if (at - (uintptr_t)memory >= bytes)
		_exit(3);
	list[listed++] = (uint32_t)((at - (uintptr_t)memory) / PAGE);
	if (mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE))
		_exit(4); /* vm.max_map_count */
}

static void mprotect_begin(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	sigaction(SIGSEGV, &action, NULL);
	if (mprotect(memory, bytes, PROT_READ))
		fail("mprotect");
}

static size_t mprotect_look(void)
{
	size_t found = listed;

	listed = 0;
	if (mprotect(memory, bytes, PROT_READ))
		fail("mprotect");
	return found;
}

/* ---- soft-dirty ---- */

static size_t dirty_look(void)
{
	static uint64_t words[PAGE * 8];
	size_t found = 0;

	for (size_t at = 0; at < pages;) {
		size_t want = pages - at < PAGE * 8 ? pages - at : PAGE * 8;
		ssize_t got = pread(pagemap, words, want * 8,
				    (off_t)(((uintptr_t)memory / PAGE + at) * 8));

		if (got <= 0)
			fail("/proc/self/pagemap");
		for (ssize_t i = 0; i < got / 8; i++)
			found += !!(words[i] & SOFT_DIRTY);
		at += (size_t)got / 8;
	}
	if (pwrite(clear_refs, "4", 1, 0) != 1)
		fail("/proc/self/clear_refs");
	return found;
}

/* If the kernel was built without soft-dirty, clearing succeeds and no page is ever dirty. */
static void dirty_begin(void)
{
	clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	dirty_look();
	*(volatile unsigned char *)memory = 2;
	if (!dirty_look()) {
		answer("{\"error\": \"this kernel has no soft-dirty (CONFIG_MEM_SOFT_DIRTY)\"}\n");
		exit(1);
	}
}

static void nothing(void)
{
}

static size_t no_look(void)
{
	return 0;
}

static const struct method {
	const char *name;
	void (*begin)(void);
	size_t (*look)(void);
} methods[] = {
	{"none", nothing, no_look},
	{"async", async_begin, async_look},
	{"uffd", uffd_start, uffd_look},
	{"mprotect", mprotect_begin, mprotect_look},
	{"soft-dirty", dirty_begin, dirty_look},
};

int main(int argc, char **argv)
{
	const struct method *method = NULL;
	char line[64];

	for (size_t i = 0; argc == 3 && i < sizeof(methods) / sizeof(*methods); i++)
		if (!strcmp(argv[1], methods[i].name))
			method = &methods[i];
	if (!method)
		return 2;
	bytes = strtoull(argv[2], NULL, 10);
	pages = bytes / PAGE;
	prctl(PR_SET_PDEATHSIG, 9);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	list = calloc(pages, sizeof(*list));
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pagemap < 0 || !list || memory == MAP_FAILED)
		fail("memory");
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	memset(memory, 1, bytes);
	memset(list, 1, pages * sizeof(*list));
	method->begin();
	answer("{}\n");

	while (fgets(line, sizeof(line), stdin)) {
		size_t count = (size_t)((double)pages * strtod(line, NULL) / 100 + 0.5), found;
		uint64_t begun = now_ns(), between;

		for (size_t i = 0; i < count; i++)
			((volatile unsigned char *)memory)[scattered(i, pages) * PAGE]++;
		between = now_ns();
		found = method->look();
		answer("{\"write_ns\": %lu, \"look_ns\": %lu, \"pages\": %zu, \"found\": %zu}\n",
		       between - begun, now_ns() - between, count, found);
	}
	return 0;
}
