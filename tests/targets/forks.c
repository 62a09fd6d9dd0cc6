/*
 * Forks, and knows which pages each side writes: forks PAGES. Answers each line of stdin with one:
 *   f K   forks a child that writes the first K pages, and waits: its pid
 *   r K   forks a child that reads K pages of a hole, writes 10 of them, and waits: its pid
 *   n K   forks a child that forks one that writes K pages; both wait: their pids
 *   g K   forks a child that gives the first K pages back, and waits: its pid
 *   p K   writes the first K pages itself
 *   d K   gives the first K pages back itself
 *   s, v, x   posix_spawn, vfork + exec, fork + exec of true(1), waited for
 *   q K   forks K children that write 100 pages each and end at once
 *   e     ends the youngest child
 */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile char *area;
static int done[2], kids[4096], count;

static void store(int pages)
{
	for (int i = 0; i < pages; i++)
		area[(long)i * 4096]++;
}

/* Reads a hole, which needs no memory, and writes its first pages. */
static void read_hole(int pages)
{
	volatile char *hole = mmap(NULL, (size_t)pages * 4096, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise((void *)hole, (size_t)pages * 4096, MADV_NOHUGEPAGE);
	for (int i = 0; i < pages; i++)
		(void)hole[(long)i * 4096];
	for (int i = 0; i < 10; i++)
		hole[(long)i * 4096] = 1;
}

static void give_back(int pages)
{
	madvise((void *)area, (size_t)pages * 4096, MADV_DONTNEED);
}

enum work { STORE, NESTED, READ, GIVE_BACK };

static int child(int pages, enum work work)
{
	int inner = 0, pid = fork(), told[2];

	if (pid == 0) {
		int above = done[1];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pipe(done); /* of its own, for its own child */
		if (work == NESTED)
			inner = child(pages, STORE);
		else if (work == READ)
			read_hole(pages);
		else if (work == GIVE_BACK)
			give_back(pages);
		else
			store(pages);
		told[0] = getpid();
		told[1] = inner;
		write(above, told, sizeof(told));
		for (;;)
			pause();
	}
	read(done[0], told, sizeof(told));
	if (work == NESTED)
		printf("%d ", told[1]);
	return kids[count++] = pid;
}

static void spawn(char how)
{
	char *words[] = {"true", NULL};
	int pid = 0;

	if (how == 's')
		posix_spawnp(&pid, "true", NULL, NULL, words, environ);
	else if ((pid = how == 'v' || how == 'w' ? vfork() : fork()) == 0) {
		if (how != 'w')
			execvp("true", words);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
	printf("%d\n", pid);
}

/* Forks a child that writes, and then runs a program that stays. */
static void run(int pages)
{
	int pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		store(pages);
		execlp("sleep", "sleep", "1000", NULL);
		_exit(1);
	}
	printf("%d\n", kids[count++] = pid);
}

/* Forks a child that forks another one, and ends at once. */
static void background(int pages)
{
	int alive[2], told, pid;

	pipe(alive);
	pid = fork();
	if (pid == 0) {
		close(alive[1]);
		if (fork() != 0)
			_exit(0);
		store(pages);
		told = getpid();
		write(done[1], &told, sizeof(told));
		read(alive[0], &told, sizeof(told)); /* until the oldest has ended */
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	read(done[0], &told, sizeof(told));
	printf("%d %d\n", told, pid);
}

static void quick(int number)
{
	for (int i = 0; i < number; i++) {
		if (fork() == 0) {
			store(100);
			_exit(0);
		}
		wait(NULL);
	}
	printf("%d\n", number);
}

int main(int argc, char **argv)
{
	int pages = argc > 1 ? atoi(argv[1]) : 1000, number, file;
	char line[64];

	/* private pages in a mapping that has a name */
	file = memfd_create("area", MFD_CLOEXEC);
	ftruncate(file, (off_t)pages * 4096);
	area = mmap(NULL, (size_t)pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	memset((void *)area, 1, (size_t)pages * 4096);
	pipe(done);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%d\n", getpid());
	while (fgets(line, sizeof(line), stdin)) {
		number = atoi(line + 1);
		switch (line[0]) {
		case 'f':
			printf("%d\n", child(number, STORE));
			break;
		case 'r':
			printf("%d\n", child(number, READ));
			break;
		case 'n':
			printf("%d\n", child(number, NESTED));
			break;
		case 'l':
			run(number);
			break;
		case 'b':
			background(number);
			break;
		case 'g':
			printf("%d\n", child(number, GIVE_BACK));
			break;
		case 'd':
			give_back(number);
			printf("%d\n", number);
			break;
		case 'p':
			store(number);
			printf("%d\n", number);
			break;
		case 'q':
			quick(number);
			break;
		case 'e':
			kill(kids[--count], SIGKILL);
			waitpid(kids[count], NULL, 0);
			printf("%d\n", kids[count]);
			break;
		default:
			spawn(line[0]);
		}
	}
	return 0;
}
