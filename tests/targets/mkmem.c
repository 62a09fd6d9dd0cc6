/* SPDX-License-Identifier: MIT */
/*
 * A target that obeys commands, one per line, and knows which pages it stored to.
 *
 *	mkmem NAME=KIND,pages=N[,fill=1][,file=PATH] ...
 *
 * prints {"pid": …, "page_size": …, "ranges": {"NAME": [start, end], …}} and then obeys commands on
 * stdin, answering "ok …" or "error …" after each. RUNS is like 0,3-7,9 (pages, both ends included).
 * The end of input ends it, and so does the death of its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"

#define MAX_RANGES 1024
#define HUGE (2u << 20)

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct range {
	char name[32];
	volatile unsigned char *at;
	size_t pages;
	int fd;
};

static struct range ranges[MAX_RANGES];
static int count;
static size_t page;
static char **arguments;

static void answer(bool good, const char *what)
{
	if (good)
		printf("ok %s\n", what);
	else
		printf("error %s: %s\n", what, strerror(errno));
	fflush(stdout);
}

static struct range *find(const char *name)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(ranges[i].name, name))
			return &ranges[i];
	return NULL;
}

/* Calls back for each run of pages, such as "3-7", in a list of runs. */
static bool each_run(struct range *r, const char *runs,
		     bool (*act)(struct range *r, size_t first, size_t last, int what), int what)
{
	char *copy = strdup(runs), *rest = copy, *word;
	bool good = true;

	while (good && (word = strsep(&rest, ","))) {
		size_t first = strtoul(word, &word, 10), last = first;

		if (*word == '-')
			last = strtoul(word + 1, NULL, 10);
		if (last >= r->pages || first > last) {
			errno = ERANGE;
			good = false;
		} else {
			good = act(r, first, last, what);
		}
	}
	free(copy);
	return good;
}

static uint64_t stored; /* a new value each time, so that each store changes the page */

static bool store(struct range *r, size_t first, size_t last, int what)
{
	(void)what;
	for (size_t i = first; i <= last; i++)
		*(volatile uint64_t *)(r->at + i * page + (i * 64) % page) = ++stored;
	return true;
}

static bool load(struct range *r, size_t first, size_t last, int what)
{
	volatile unsigned char sink;

	(void)what;
	for (size_t i = first; i <= last; i++)
		sink = r->at[i * page];
	(void)sink;
	return true;
}

static bool advise(struct range *r, size_t first, size_t last, int what)
{
	return madvise((void *)(r->at + first * page), (last - first + 1) * page, what) == 0;
}

static bool lock(struct range *r, size_t first, size_t last, int what)
{
	(void)what;
	return mlock((void *)(r->at + first * page), (last - first + 1) * page) == 0;
}

static bool unmap(struct range *r, size_t first, size_t last, int what)
{
	(void)what;
	return munmap((void *)(r->at + first * page), (last - first + 1) * page) == 0;
}

static bool protect(struct range *r, size_t first, size_t last, int what)
{
	return mprotect((void *)(r->at + first * page), (last - first + 1) * page, what) == 0;
}

static bool map_over(struct range *r, size_t first, size_t last, int what)
{
	void *at = (void *)(r->at + first * page);

	(void)what;
	return mmap(at, (last - first + 1) * page, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at;
}

static bool punch(struct range *r, size_t first, size_t last, int what)
{
	(void)what;
	return fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * page),
			 (off_t)((last - first + 1) * page)) == 0;
}

/* The kernel stores on our behalf, each time by another call. */
static bool receive(struct range *r, size_t first, size_t last, int what)
{
	int ends[2];

	for (size_t i = first; i <= last; i++) {
		char *at = (char *)r->at + i * page;
		struct iovec vec = {at, 4};
		ssize_t got = -1;

		switch (what) {
		case 'r':
			if (pipe(ends) || write(ends[1], "data", 4) != 4)
				return false;
			got = read(ends[0], at, 4);
			break;
		case 'v':
			if (pipe(ends) || write(ends[1], "data", 4) != 4)
				return false;
			got = readv(ends[0], &vec, 1);
			break;
		case 's':
			if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || write(ends[1], "data", 4) != 4)
				return false;
			got = recv(ends[0], at, 4, 0);
			break;
		case 'g':
			got = getrandom(at, 4, 0);
			break;
		case 'c':
			got = getcwd(at, page) ? 4 : -1;
			break;
		}
		if (what != 'g' && what != 'c') {
			close(ends[0]);
			close(ends[1]);
		}
		if (got != 4)
			return false;
	}
	return true;
}

/* Reads whole pages directly from a disk, past the page cache. */
static bool receive_direct(struct range *r, size_t first, size_t last, int what)
{
	int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	void *data = NULL;
	bool good = false;

	(void)what;
	if (fd >= 0 && !posix_memalign(&data, page, page)) {
		memset(data, (int)++stored | 1, page);
		good = write(fd, data, page) == (ssize_t)page;
	}
	for (size_t i = first; good && i <= last; i++)
		good = pread(fd, (char *)r->at + i * page, page, 0) == (ssize_t)page;
	free(data);
	close(fd);
	return good;
}

/* Uses io_uring: 'p' pins the pages, 'f' reads into pinned ones, 'u' into any. */
static bool receive_ring(struct range *r, size_t first, size_t last, int what)
{
	static struct ring ring = {.fd = -1};
	bool good = ring.fd >= 0 || ring_open(&ring);
	char *at = (char *)r->at + first * page;
	int ends[2];

	if (what == 'p')
		return good && ring_pin(&ring, at, (last - first + 1) * page);
	for (size_t i = first; good && i <= last; i++, at += page) {
		good = pipe(ends) == 0 && write(ends[1], "ring", 4) == 4 &&
		       ring_read(&ring, ends[0], at, 4, what == 'f') == 4;
		close(ends[0]);
		close(ends[1]);
	}
	return good;
}

/* Stores past the mapping: 'a' through another mapping of the same file, 'w' by write(2). */
static bool write_past(struct range *r, size_t first, size_t last, int what)
{
	size_t length = r->pages * page;
	char *alias = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	char byte = (char)++stored;

	if (alias == MAP_FAILED)
		return false;
	for (size_t i = first; i <= last; i++) {
		if (what == 'a')
			alias[i * page] = byte;
		else if (pwrite(r->fd, &byte, 1, (off_t)(i * page)) != 1)
			return false;
	}
	return munmap(alias, length) == 0;
}

static bool fill_with_zeros(struct range *r, size_t first, size_t last, int what)
{
	(void)what;
	memset((void *)(r->at + first * page), 0, (last - first + 1) * page);
	return true;
}

/* Registers a userfaultfd of the target's own on some pages. */
static bool watch_own(struct range *r, size_t first, size_t last, int what)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {
		.range = {(uintptr_t)r->at + first * page, (last - first + 1) * page},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1);

	(void)what;
	return uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &reg);
}

/* Maps, stores, protects and unmaps memory, elsewhere, in a fast loop until the end. */
static void *churn(void *unused)
{
	for (unsigned turn = 0;; turn++) {
		size_t length = (1 + turn % 7) * page;
		char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (at == MAP_FAILED)
			abort();
		at[0] = 1;
		if (turn % 3 == 0)
			mprotect(at, page, PROT_READ);
		munmap(at, length);
	}
	return unused;
}

/*
 * Stores to random pages of a range, over and over, until the end. The range "counters" has two
 * 64-bit numbers per page: stores begun, and stores done.
 */
static void *storm(void *argument)
{
	struct range *r = argument;
	uint64_t *counters = (void *)find("counters")->at;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (unsigned turn = 1;; turn++) {
		size_t chosen = (unsigned)rand_r(&seed) % r->pages;

		__atomic_add_fetch(&counters[2 * chosen], 1, __ATOMIC_SEQ_CST);
		r->at[chosen * page] = (unsigned char)turn;
		__atomic_add_fetch(&counters[2 * chosen + 1], 1, __ATOMIC_SEQ_CST);
		if (turn % 8 == 0)
			usleep(100);
	}
	return argument;
}

static int file_of(const char *path, size_t length)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0 && ftruncate(fd, (off_t)length) < 0)
		return -1;
	return fd;
}

/* "heap=anon,pages=64,fill=1,file=/x": makes a mapping and remembers it. */
static bool make(const char *words)
{
	struct range *r = &ranges[count];
	char *copy = strdup(words), *rest = copy, *kind, *word, path[4096] = "";
	size_t length, reserve = 0;
	bool fill = false, shared = false, read_only = false;
	void *at = MAP_FAILED;
	int flags;

	memset(r, 0, sizeof(*r));
	r->fd = -1;
	r->pages = 16;
	kind = strsep(&rest, ",");
	word = strsep(&kind, "=");
	snprintf(r->name, sizeof(r->name), "%s", word);
	while ((word = strsep(&rest, ","))) {
		if (!strncmp(word, "pages=", 6))
			r->pages = strtoul(word + 6, NULL, 10);
		else if (!strcmp(word, "fill=1"))
			fill = true;
		else if (!strcmp(word, "shared=1"))
			shared = true;
		else if (!strcmp(word, "read_only=1"))
			read_only = true;
		else if (!strncmp(word, "gb=", 3))
			reserve = strtoul(word + 3, NULL, 10) << 30;
		else if (!strncmp(word, "file=", 5))
			snprintf(path, sizeof(path), "%s", word + 5);
	}
	length = r->pages * page;
	flags = shared ? MAP_SHARED : MAP_PRIVATE;
	if (!strcmp(kind, "anon")) {
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (at != MAP_FAILED)
			madvise(at, length, MADV_NOHUGEPAGE);
	} else if (!strcmp(kind, "folios")) { /* of every size that the machine's settings allow */
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	} else if (!strcmp(kind, "shmem")) {
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	} else if (!strcmp(kind, "file") || !strcmp(kind, "memfd")) {
		r->fd = *kind == 'm' ? memfd_create("target", MFD_CLOEXEC) : file_of(path, length);
		if (r->fd >= 0 && *kind == 'm' && ftruncate(r->fd, (off_t)length) < 0)
			r->fd = -1;
		if (read_only) {
			close(r->fd);
			r->fd = open(path, O_RDONLY | O_CLOEXEC);
		}
		if (r->fd >= 0)
			at = mmap(NULL, length, PROT_READ | (read_only ? 0 : PROT_WRITE), flags, r->fd,
				  0);
	} else if (!strcmp(kind, "sysv")) {
		int id = shmget(IPC_PRIVATE, length, IPC_CREAT | 0600);

		if (id >= 0) {
			at = shmat(id, NULL, 0);
			shmctl(id, IPC_RMID, NULL);
		}
	} else if (!strcmp(kind, "thp")) {
		char *wide = mmap(NULL, length + HUGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (wide != MAP_FAILED) {
			munmap(wide, page); /* so that the mapping begins within a huge page */
			at = (void *)(((uintptr_t)wide + HUGE) & ~(uintptr_t)(HUGE - 1));
			madvise(at, length, MADV_HUGEPAGE);
			if (shared && (r->fd = memfd_create("target", MFD_CLOEXEC)) >= 0 &&
			    !ftruncate(r->fd, (off_t)length))
				at = mmap(at, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
					  r->fd, 0);
		}
	} else if (!strcmp(kind, "hugetlb")) {
		at = mmap(NULL, length, PROT_READ | PROT_WRITE,
			  flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	} else if (!strcmp(kind, "reserve")) {
		at = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		r->pages = reserve / page;
	} else if (!strcmp(kind, "sparse")) {
		at = mmap(NULL, reserve, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		r->pages = reserve / page;
		if (at != MAP_FAILED)
			madvise(at, reserve, MADV_NOHUGEPAGE);
	} else if (!strcmp(kind, "many")) { /* neighbours that cannot merge */
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (size_t i = 0; at != MAP_FAILED && i < r->pages; i += 2)
			if (mprotect((char *)at + i * page, page, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
				at = MAP_FAILED;
	} else {
		errno = EINVAL;
	}
	free(copy);
	if (at == MAP_FAILED)
		return false;
	r->at = at;
	count++;
	if (fill)
		store(r, 0, r->pages - 1, 0);
	return true;
}

/* Unmaps a range, or returns the end of the heap, and forgets its name. */
static bool drop(struct range *r)
{
	char *end = (char *)r->at + r->pages * page;
	bool good = end == sbrk(0) ? sbrk(-(intptr_t)(r->pages * page)) == end
				   : munmap((void *)r->at, r->pages * page) == 0;

	*r = ranges[--count];
	return good;
}

static bool grow_brk(struct range *r, size_t pages)
{
	char *at = sbrk(0);
	size_t off = (uintptr_t)at % page;

	if (off && sbrk((intptr_t)(page - off)) == (void *)-1)
		return false;
	at = sbrk((intptr_t)(pages * page));
	if (at == (void *)-1)
		return false;
	r->at = (void *)at;
	r->pages = pages;
	return true;
}

static bool remap(struct range *r, const char *how, size_t pages)
{
	int flags = MREMAP_MAYMOVE;
	void *to = NULL, *at;

	if (!strcmp(how, "move")) {
		to = mmap(NULL, r->pages * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		flags |= MREMAP_FIXED;
		pages = r->pages;
	} else if (!strcmp(how, "at")) { /* the number is an address, where nothing is mapped */
		to = (void *)pages;
		flags |= MREMAP_FIXED;
		pages = r->pages;
	}
	at = to ? mremap((void *)r->at, r->pages * page, pages * page, flags, to)
		: mremap((void *)r->at, r->pages * page, pages * page, flags);
	if (at == MAP_FAILED)
		return false;
	r->at = at;
	r->pages = pages;
	return true;
}

/*
 * Stores to each of the given number of pages below; the address of the lowest store goes to *ret.
 */
static __attribute__((noinline)) bool use_stack(size_t pages, uintptr_t *ret)
{
	volatile unsigned char deep[4096];

	deep[0] = (unsigned char)pages;
	*ret = (uintptr_t)deep;
	return pages == 0 || (use_stack(pages - 1, ret) && deep[0] == (unsigned char)pages);
}

/* A thread that waits, and then uses its stack to the requested depth. */
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t knock = PTHREAD_COND_INITIALIZER;
static size_t depth;
static uintptr_t deepest;

static void *wait_and_use_stack(void *unused)
{
	pthread_mutex_lock(&door);
	for (;;) {
		while (!depth)
			pthread_cond_wait(&knock, &door);
		use_stack(depth, &deepest);
		depth = 0;
		pthread_cond_signal(&knock);
	}
	return unused;
}

static void have_stack_used(size_t pages)
{
	pthread_mutex_lock(&door);
	depth = pages;
	pthread_cond_broadcast(&knock);
	while (depth)
		pthread_cond_wait(&knock, &door);
	pthread_mutex_unlock(&door);
}

struct job {
	struct range *r;
	const char *runs;
	bool good;
};

static void *work(void *argument)
{
	struct job *job = argument;

	job->good = each_run(job->r, job->runs, store, 0);
	return NULL;
}

static bool in_thread(struct range *r, const char *runs)
{
	struct job job = {r, runs, false};
	pthread_t thread;

	return !pthread_create(&thread, NULL, work, &job) && !pthread_join(thread, NULL) && job.good;
}

static uint64_t checksum(struct range *r)
{
	uint64_t sum = 0xcbf29ce484222325u;

	for (size_t i = 0; i < r->pages * page; i++)
		sum = (sum ^ r->at[i]) * 0x100000001b3u;
	return sum;
}

static void say_range(const struct range *r)
{
	char text[96];

	snprintf(text, sizeof(text), "%lu %lu", (unsigned long)r->at,
		 (unsigned long)r->at + r->pages * page);
	answer(true, text);
}

static bool with_runs(const char *verb, struct range *r, const char *runs)
{
	static const struct {
		const char *verb;
		bool (*act)(struct range *r, size_t first, size_t last, int what);
		int what;
	} verbs[] = {
		{"write", store, 0},
		{"read", load, 0},
		{"dontneed", advise, MADV_DONTNEED},
		{"free", advise, MADV_FREE},
		{"pageout", advise, MADV_PAGEOUT},
		{"guard", advise, MADV_GUARD_INSTALL},
		{"unguard", advise, MADV_GUARD_REMOVE},
		{"merge", advise, MADV_MERGEABLE},
		{"collapse", advise, MADV_COLLAPSE},
		{"populate", advise, MADV_POPULATE_WRITE},
		{"thp", advise, MADV_HUGEPAGE},
		{"over", map_over, 0},
		{"punch", punch, 0},
		{"mlock", lock, 0},
		{"munmap", unmap, 0},
		{"none", protect, PROT_NONE},
		{"ro", protect, PROT_READ},
		{"rw", protect, PROT_READ | PROT_WRITE},
		{"kread", receive, 'r'},
		{"kreadv", receive, 'v'},
		{"krecv", receive, 's'},
		{"kgetrandom", receive, 'g'},
		{"kgetcwd", receive, 'c'},
		{"kdirect", receive_direct, 0},
		{"kring", receive_ring, 'u'},
		{"pin", receive_ring, 'p'},
		{"kpinned", receive_ring, 'f'},
		{"alias", write_past, 'a'},
		{"kwrite", write_past, 'w'},
		{"zero", fill_with_zeros, 0},
		{"uffd", watch_own, 0},
	};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (!strcmp(verb, verbs[i].verb))
			return each_run(r, runs, verbs[i].act, verbs[i].what);
	if (!strcmp(verb, "thread"))
		return in_thread(r, runs);
	errno = EINVAL;
	return false;
}

static void obey(char *line)
{
	char *rest = line, *verb = strsep(&rest, " "), *name = strsep(&rest, " ");
	char *last = rest ? rest : "0", text[64];
	struct range *r = name ? find(name) : NULL;

	if (!strcmp(verb, "quit")) {
		answer(true, verb);
		exit(0);
	} else if (!strcmp(verb, "map") && name) {
		answer(make(name), verb);
	} else if (!strcmp(verb, "range") && r) {
		say_range(r);
	} else if (!strcmp(verb, "again") && r) { /* unmap, and map again at the same place */
		void *at = (void *)r->at;

		munmap(at, r->pages * page);
		answer(mmap(at, r->pages * page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at,
		       verb);
	} else if (!strcmp(verb, "mremap") && r) {
		char *how = strsep(&rest, " ");

		answer(remap(r, how, rest ? strtoul(rest, NULL, 10) : 0), verb);
	} else if (!strcmp(verb, "truncate") && r) {
		answer(ftruncate(r->fd, (off_t)(strtoul(last, NULL, 10) * page)) == 0, verb);
	} else if (!strcmp(verb, "brk") && name) {
		snprintf(ranges[count].name, sizeof(ranges[count].name), "%s", rest ? rest : "brk");
		answer(grow_brk(&ranges[count++], strtoul(name, NULL, 10)), verb);
	} else if (!strcmp(verb, "drop") && r) {
		answer(drop(r), verb);
	} else if (!strcmp(verb, "stack") && name) {
		size_t pages = strtoul(name, NULL, 10);
		uintptr_t lowest;

		use_stack(pages, &lowest);
		snprintf(text, sizeof(text), "%lu %lu", lowest, lowest + pages * page);
		answer(true, text);
	} else if (!strcmp(verb, "start-thread")) {
		pthread_t thread;

		answer(!pthread_create(&thread, NULL, wait_and_use_stack, NULL), verb);
	} else if (!strcmp(verb, "its-stack") && name) {
		size_t pages = strtoul(name, NULL, 10);

		have_stack_used(pages);
		snprintf(text, sizeof(text), "%lu %lu", deepest, deepest + pages * page);
		answer(true, text);
	} else if (!strcmp(verb, "checksum") && r) {
		snprintf(text, sizeof(text), "%016lx", (unsigned long)checksum(r));
		answer(true, text);
	} else if (!strcmp(verb, "fork")) {
		pid_t child = fork();

		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (r)
				each_run(r, last, store, 0);
			pause();
		}
		snprintf(text, sizeof(text), "%d", child);
		answer(child > 0, text);
	} else if (!strcmp(verb, "reap") && name) {
		kill(atoi(name), SIGKILL);
		answer(waitpid(atoi(name), NULL, 0) > 0, verb);
	} else if (!strcmp(verb, "exec")) {
		execv("/proc/self/exe", arguments);
		answer(false, verb);
	} else if (!strcmp(verb, "storm") && r) {
		pthread_t thread;
		bool good = true;

		for (unsigned long i = strtoul(last, NULL, 10); good && i > 0; i--)
			good = !pthread_create(&thread, NULL, storm, r);
		answer(good, verb);
	} else if (!strcmp(verb, "churn")) {
		pthread_t thread;

		answer(!pthread_create(&thread, NULL, churn, NULL), verb);
	} else if (r) {
		answer(with_runs(verb, r, last), verb);
	} else {
		errno = EINVAL;
		answer(false, verb);
	}
}

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length;

	arguments = argv;
	page = (size_t)sysconf(_SC_PAGESIZE);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 1; i < argc; i++) {
		if (!make(argv[i])) {
			fprintf(stderr, "mkmem: %s: %s\n", argv[i], strerror(errno));
			return 77;
		}
	}
	printf("{\"pid\": %d, \"page_size\": %zu, \"ranges\": {", getpid(), page);
	for (int i = 0; i < count; i++)
		printf("%s\"%s\": [%lu, %lu]", i ? ", " : "", ranges[i].name,
		       (unsigned long)ranges[i].at,
		       (unsigned long)ranges[i].at + ranges[i].pages * page);
	printf("}}\n");
	fflush(stdout);
	while ((length = getline(&line, &room, stdin)) > 0) {
		line[length - 1] = 0;
		obey(line);
	}
	return 0;
}
