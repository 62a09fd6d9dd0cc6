/* SPDX-License-Identifier: MIT */
/*
 * A target that knows which function and which thread has written each page first.
 *
 * A line on stdin names a job; the answer is one line per run of pages, "ADDRESS PAGES TID FUNCTION",
 * and then "done". The functions are not inlined, so that their names stay.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define HUGE (2ul << 20)
#define COUNT 500ul
#define APART __attribute__((noinline, noclone))
#define STORE_EACH(memory, count)                                                                            \
	for (unsigned long i = 0; i < (count); i++)                                                          \
	(memory)[i * PAGE + 100] = (char)(i + 1)

typedef volatile char byte;

static byte *old_area, *area[8], *hole, *read_hole, *huge, *shared, *anonymous, *slots;
static atomic_ulong next_slot;
static long tid_of_slot[40000];
static pthread_mutex_t go = PTHREAD_MUTEX_INITIALIZER;

static byte *map(unsigned long size, int flags, int fd)
{
	char *memory = mmap(0, size + HUGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (memory == MAP_FAILED)
		exit(9);
	return (byte *)(((uintptr_t)memory + HUGE - 1) & ~(HUGE - 1));
}

static byte *pages(unsigned long count, int populated)
{
	byte *memory = map(count * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	madvise((void *)memory, count * PAGE, MADV_NOHUGEPAGE);
	if (populated)
		memset((void *)memory, 1, count * PAGE);
	return memory;
}

static void tell(byte *memory, unsigned long count, long tid, const char *function)
{
	printf("%lx %lu %ld %s\n", (unsigned long)memory, count, tid, function);
}

static long me(void)
{
	return syscall(SYS_gettid);
}

APART void by_store(byte *memory) { STORE_EACH(memory, COUNT); }
/* Calls a function that has no frame of its own. */
APART void relay(byte *memory)
{
	by_store(memory);
	__asm__ volatile("" ::: "memory"); /* no jump in place of the call */
}

APART void by_old_thread(byte *memory) { STORE_EACH(memory, COUNT); }
APART void by_new_thread(byte *memory) { STORE_EACH(memory, COUNT); }
APART void by_short_thread(byte *memory) { STORE_EACH(memory, 8); }
APART void in_hole(byte *memory) { STORE_EACH(memory, COUNT); }
APART void in_new(byte *memory) { STORE_EACH(memory, COUNT); }
APART void in_huge(byte *memory) { STORE_EACH(memory, HUGE / PAGE); }
APART void in_shared(byte *memory) { STORE_EACH(memory, COUNT); }
APART void in_anonymous_shared(byte *memory) { STORE_EACH(memory, COUNT); }
APART void in_system_v(byte *memory) { STORE_EACH(memory, COUNT); }
/* One store per huge page: each counts as a whole one. */
APART void in_hugetlb(byte *memory) { memory[12345] = memory[HUGE + 9] = 1; }

APART void by_atomic(byte *memory)
{
	for (unsigned long i = 0; i < COUNT; i++)
		__sync_fetch_and_add((int *)(memory + i * PAGE), 1);
}

APART void after_read(byte *memory)
{
	for (unsigned long i = 0; i < COUNT; i++)
		memory[i * PAGE + 9] = (char)(memory[i * PAGE + 5] + 1);
}

APART void touch_huge(byte *memory)
{
	memory[12345] = 1;
}

static void *old_thread(void *unused)
{
	pthread_mutex_lock(&go);
	by_old_thread(old_area);
	tell(old_area, COUNT, me(), "by_old_thread");
	pthread_mutex_unlock(&go);
	return unused;
}

static void *new_thread(void *memory)
{
	by_new_thread(memory);
	tell(memory, COUNT, me(), "by_new_thread");
	return NULL;
}

static void *thread_of_thread(void *memory)
{
	pthread_t thread;

	pthread_create(&thread, NULL, new_thread, memory);
	pthread_join(thread, NULL);
	return NULL;
}

/* Each short thread writes its slot, and makes up to two generations more. */
static void *short_thread(void *generations)
{
	unsigned long slot = next_slot++;
	pthread_t thread;

	tid_of_slot[slot] = me();
	by_short_thread(slots + slot * 8 * PAGE);
	if (generations && !pthread_create(&thread, NULL, short_thread, (char *)generations - 1))
		pthread_join(thread, NULL);
	return NULL;
}

static void storm(unsigned long count)
{
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	while (next_slot < count) {
		pthread_t threads[4];

		for (int i = 0; i < 4; i++)
			if (pthread_create(&threads[i], &small, short_thread, (void *)2))
				exit(9);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
	}
	for (unsigned long slot = 0; slot < next_slot; slot++)
		tell(slots + slot * 8 * PAGE, 8, tid_of_slot[slot], "by_short_thread");
}

/* Shared memory of both kinds without a file, populated and then written. */
static void shared_ways(void)
{
	int id = shmget(IPC_PRIVATE, COUNT * PAGE, IPC_CREAT | 0600);
	byte *system_v = id < 0 ? (byte *)-1 : shmat(id, NULL, 0);

	if (system_v == (byte *)-1 || shmctl(id, IPC_RMID, NULL))
		exit(9);
	in_anonymous_shared(anonymous), tell(anonymous, COUNT, me(), "in_anonymous_shared");
	in_system_v(system_v), tell(system_v, COUNT, me(), "in_system_v");
}

static void hugetlb_ways(void)
{
	byte *memory = mmap(0, 2 * HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (memory == MAP_FAILED)
		exit(9);
	in_hugetlb(memory), tell(memory, 2 * HUGE / PAGE, me(), "in_hugetlb");
}

static void from_another_process(byte *memory)
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct iovec here = {(void *)area[0], COUNT * PAGE}, there = {(void *)memory, COUNT * PAGE};

		_exit(process_vm_writev(getppid(), &here, 1, &there, 1, 0) < 0);
	}
	if (waitpid(child, &status, 0) < 0 || status)
		exit(9);
}

static void all_ways(pthread_t old)
{
	int zero = open("/dev/zero", O_RDONLY);
	pthread_t thread;
	byte *fresh;

	pthread_mutex_unlock(&go);
	pthread_join(old, NULL);
	by_store(area[0]), tell(area[0], COUNT, me(), "by_store");
	by_atomic(area[1]), tell(area[1], COUNT, me(), "by_atomic");
	memset((void *)area[2], 7, COUNT * PAGE), tell(area[2], COUNT, me(), "memset");
	if (read(zero, (void *)area[3], COUNT * PAGE) != (ssize_t)(COUNT * PAGE))
		exit(9);
	tell(area[3], COUNT, me(), "(kernel)");
	pthread_create(&thread, NULL, new_thread, (void *)area[4]), pthread_join(thread, NULL);
	pthread_create(&thread, NULL, thread_of_thread, (void *)area[5]), pthread_join(thread, NULL);
	in_hole(hole), tell(hole, COUNT, me(), "in_hole");
	after_read(read_hole), tell(read_hole, COUNT, me(), "after_read");
	in_huge(huge), tell(huge, HUGE / PAGE, me(), "in_huge");
	touch_huge(huge + HUGE), tell(huge + HUGE, HUGE / PAGE, me(), "touch_huge");
	in_shared(shared), tell(shared, COUNT, me(), "in_shared");
	fresh = pages(COUNT, 0);
	in_new(fresh), tell(fresh, COUNT, me(), "in_new");
	from_another_process(area[6]), tell(area[6], COUNT, 0, "(other)");
	close(zero);
}

int main(void)
{
	char line[64];
	pthread_t old;
	int memory = memfd_create("shared", 0);
	unsigned long number;

	for (int i = 0; i < 8; i++)
		area[i] = pages(COUNT, 1);
	old_area = pages(COUNT, 1);
	hole = pages(COUNT, 0), read_hole = pages(COUNT, 0), slots = pages(8 * 40000, 0);
	huge = map(2 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	madvise((void *)huge, 2 * HUGE, MADV_HUGEPAGE);
	memset((void *)huge, 1, HUGE);
	if (ftruncate(memory, COUNT * PAGE + HUGE))
		return 9;
	shared = map(COUNT * PAGE, MAP_SHARED, memory);
	memset((void *)shared, 1, COUNT * PAGE);
	anonymous = map(COUNT * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	memset((void *)anonymous, 1, COUNT * PAGE);
	pthread_mutex_lock(&go);
	pthread_create(&old, NULL, old_thread, NULL);
	setvbuf(stdout, NULL, _IOFBF, 1 << 20);
	printf("ready\n"), fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "all\n"))
			all_ways(old);
		else if (!strcmp(line, "again\n"))
			relay(area[0]), tell(area[0], COUNT, me(), "by_store");
		else if (!strcmp(line, "shared\n"))
			shared_ways();
		else if (!strcmp(line, "hugetlb\n"))
			hugetlb_ways();
		else if (sscanf(line, "storm %lu", &number) == 1)
			storm(number);
		printf("done\n"), fflush(stdout);
	}
	return 0;
}
