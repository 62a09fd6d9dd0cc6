/*
 * Threads that write at random at full speed, and a main thread that forks: threaded_forks PAGES
 * THREADS. Answers each line of stdin with one:
 *   r    lets the threads run
 *   f    forks a child that writes 1,000 pages, and waits; 30 ms later: its pid
 *   s    stops the threads
 *   e    ends the child
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile char *area;
static long pages;
static atomic_int run, idle;

static void *writer(void *number)
{
	unsigned long at = 88172645463325252ul ^ (unsigned long)number * 7919;

	for (;;) {
		while (!run)
			usleep(1000);
		idle--;
		while (run) {
			at ^= at << 13;
			at ^= at >> 7;
			at ^= at << 17;
			area[(long)(at % (unsigned long)pages) * 4096]++;
		}
		idle++;
	}
	return NULL;
}

static int child(void)
{
	int pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (long i = 0; i < 1000; i++)
			area[i * 17 % pages * 4096]++;
		for (;;)
			pause();
	}
	usleep(30000);
	return pid;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 2, kid = 0;
	char line[64];

	pages = argc > 1 ? atol(argv[1]) : 1000;
	area = mmap(NULL, (size_t)pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	madvise((void *)area, (size_t)pages * 4096, MADV_NOHUGEPAGE);
	memset((void *)area, 1, (size_t)pages * 4096);
	idle = threads;
	for (long i = 1; i <= threads; i++) {
		pthread_t thread;

		pthread_create(&thread, NULL, writer, (void *)i);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%d\n", getpid());
	while (fgets(line, sizeof(line), stdin)) {
		switch (line[0]) {
		case 'r':
			run = 1;
			while (idle)
				usleep(1000);
			break;
		case 'f':
			kid = child();
			break;
		case 's':
			run = 0;
			while (idle != threads)
				usleep(1000);
			break;
		case 'e':
			kill(kid, SIGKILL);
			waitpid(kid, NULL, 0);
			break;
		}
		printf("%d\n", kid);
	}
	return 0;
}
