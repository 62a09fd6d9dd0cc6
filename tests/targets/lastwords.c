/* SPDX-License-Identifier: MIT */
/*
 * A CMD for `watch -- CMD`: lastwords KIND [ARGUMENT]. It prints one line per event, at once.
 *
 * Kinds that write MOST pages in their last moment, after the line "START END", and end in different
 * ways: exit CODE; kill SIGNAL; thread (another thread calls exit_group); main-first (the main thread
 * ends, and the last of the others writes); threads (each of 20 threads writes its part, then
 * exit_group); untraced (the last thread was made with CLONE_UNTRACED).
 *
 * Kinds for what a tracer must not change: signals N, stop, many-threads, exec-thread, exec-untraced,
 * vfork, clone-child, tracer, wait.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define PAGES (100u << 8) /* 100 MiB */
#define THREADS 20u

static char *memory;
static char **words;

static void fill(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		memory[i * PAGE] = 1;
}

static void map(void)
{
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	printf("%p %p\n", (void *)memory, (void *)(memory + PAGES * PAGE));
}

static pthread_t start(void *(*run)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, argument))
		abort();
	return thread;
}

static void *fill_and_exit(void *unused)
{
	fill(0, PAGES);
	exit(5);
}

static void *fill_and_end(void *main_thread)
{
	pthread_join(*(pthread_t *)main_thread, NULL);
	fill(0, PAGES);
	return NULL; /* the last thread: the process ends with 0 */
}

static pthread_barrier_t barrier;

static void *fill_part(void *argument)
{
	size_t part = (size_t)argument;

	fill(PAGES / THREADS * part, PAGES / THREADS * (part + 1));
	if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
		_exit(6);
	for (;;)
		sched_yield();
}

static int untraced(void *unused)
{
	fill(0, PAGES);
	syscall(SYS_exit_group, 4);
	return 0;
}

static volatile sig_atomic_t seen[4], values;

static void on_signal(int number, siginfo_t *info, void *context)
{
	seen[0]++;
	values += info->si_value.sival_int;
}

static void catch (int number, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};

	sigaction(number, &action, NULL);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Sends itself signals with values, each delivered before the next one. */
static void signals(int count)
{
	double begun = seconds();

	catch(SIGUSR1, on_signal);
	puts("begun");
	for (int i = 0; i < count; i++)
		sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = i % 7});
	printf("%d %d %.9f\n", seen[0], values, (seconds() - begun) / count);
}

static void *end(void *argument)
{
	return argument;
}

static void *become(void *argument)
{
	execv("/proc/self/exe", words);
	abort();
}

static void *pause_for_ever(void *unused)
{
	for (;;)
		pause();
	return NULL;
}

static int child(void *unused)
{
	char text[8192] = "";
	FILE *status = fopen("/proc/self/status", "r");

	fread(text, 1, sizeof(text) - 1, status);
	printf("%d\n", atoi(strstr(text, "TracerPid:") + 10));
	return 3;
}

static void run_clone_child(void)
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	int status;
	pid_t pid;

	for (int i = 0; i < 2;
	     i++) { /* with another exit signal clone(2) is no fork for a tracer */
		pid = clone(child, stack + sizeof(stack), i ? 0 : SIGCHLD, NULL);
		waitpid(pid, &status, __WALL);
		printf("%d\n", WEXITSTATUS(status));
	}
}

/* Traces a child of its own. */
static void trace(void)
{
	pid_t pid = fork();
	int status, stops = 0;

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execl("/bin/true", "true", NULL);
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		stops++;
		ptrace(PTRACE_CONT, pid, NULL, NULL);
	}
	printf("%d %d\n", stops, WEXITSTATUS(status));
}

static int last_words(const char *kind, const char *argument)
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	pthread_t self = pthread_self();

	map();
	if (!strcmp(kind, "exit")) {
		fill(0, PAGES);
		_exit(atoi(argument));
	}
	if (!strcmp(kind, "kill")) {
		fill(0, PAGES);
		kill(getpid(), atoi(argument));
	}
	if (!strcmp(kind, "thread"))
		start(fill_and_exit, NULL);
	if (!strcmp(kind, "main-first")) {
		start(fill_and_end, &self);
		pthread_exit(NULL);
	}
	if (!strcmp(kind, "threads")) {
		pthread_barrier_init(&barrier, NULL, THREADS);
		for (size_t i = 0; i < THREADS; i++)
			start(fill_part, (void *)i);
	}
	if (!strcmp(kind, "untraced")) {
		clone(untraced, stack + sizeof(stack),
		      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			      CLONE_SYSVSEM | CLONE_UNTRACED,
		      NULL);
		syscall(SYS_exit, 0); /* this thread only */
	}
	for (;;)
		pause();
}

int main(int count, char **arguments)
{
	const char *kind = arguments[1], *argument = count > 2 ? arguments[2] : "0";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(kind, "signals")) {
		signals(atoi(argument));
	} else if (!strcmp(kind, "many-threads")) {
		for (int i = 0; i < 500; i++)
			pthread_join(start(end, NULL), NULL);
		puts("joined");
	} else if (!strcmp(kind, "exec-thread")) {
		static char *next[] = {"lastwords", "exit", "9", NULL};

		words = next;
		for (int i = 0; i < 5; i++)
			start(pause_for_ever, NULL);
		pthread_join(start(become, NULL), NULL);
	} else if (!strcmp(kind, "vfork")) {
		for (int i = 0; i < 20; i++) {
			int status;
			pid_t pid = vfork();

			if (!pid) {
				execl("/bin/true", "true", NULL);
				_exit(1);
			}
			waitpid(pid, &status, 0);
			if (status)
				abort();
		}
		puts("forked");
	} else if (!strcmp(kind, "clone-child")) {
		run_clone_child();
	} else if (!strcmp(kind, "tracer")) {
		trace();
	} else if (!strcmp(kind, "wait")) {
		catch(SIGUSR2, on_signal);
		printf("%d\n", (int)getpid());
		while (!seen[0])
			pause();
		puts("woken");
		return 8;
	} else {
		last_words(kind, argument);
	}
	return 0;
}
