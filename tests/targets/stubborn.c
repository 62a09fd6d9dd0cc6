/* SPDX-License-Identifier: MIT */
/*
 * Targets for which an attach would wait for ever: stubborn KIND DIRECTORY
 *
 * execs: two threads wait in vfork(2); a third one calls execve(2) when it sees that the second one is
 *	traced, and waits in it until the tracer has reaped that thread. The new program ends with 0.
 * leased: calls execve(2) with an interpreter on which this process holds a write lease: the call waits
 *	for 45 s, and so does any tracer. Ends with 0 at the end of stdin.
 * endless: an unlimited amount of code to search: a file that is one hole, mapped 1,500 times. Ends as
 *	leased does.
 * many, many-code, many-elf: 60,000 mappings of a file whose path is 4 KiB long: of data, of code that is
 *	one hole, or of this program from its start. Ends as leased does.
 *
 * Prints its pid when it is ready.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAPPINGS 1500
#define CODE_SIZE (64ul << 20)

static char *self;
static volatile pid_t second;

static void say(void)
{
	printf("%d\n", getpid());
	fflush(stdout);
}

static int wait_for_end_of_stdin(void)
{
	char byte;

	while (read(0, &byte, 1) > 0)
		;
	return 0;
}

static void wait_in_vfork(void)
{
	if (vfork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* with the thread that waits */
		for (;;)
			syscall(SYS_pause);
	}
}

static void *wait_in_vfork_too(void *unused)
{
	second = (pid_t)syscall(SYS_gettid);
	wait_in_vfork();
	return unused;
}

static int is_traced(pid_t tid)
{
	char path[64], text[4096], *at;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	text[fread(text, 1, sizeof(text) - 1, file)] = 0;
	fclose(file);
	at = strstr(text, "\nTracerPid:");
	return at && atoi(at + 11) != 0;
}

static void *exec_when_traced(void *unused)
{
	while (!is_traced(second))
		usleep(1000);
	usleep(100000);
	execl(self, self, "again", NULL);
	return unused;
}

static int execs(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, wait_in_vfork_too, NULL);
	while (!second)
		usleep(1000);
	pthread_create(&thread, NULL, exec_when_traced, NULL);
	say();
	wait_in_vfork();
	return 1;
}

static void *execs_program(void *program)
{
	execl(program, program, NULL);
	perror("execl");
	return NULL;
}

static int leased(const char *place)
{
	struct {
		Elf64_Ehdr head;
		Elf64_Phdr interpreter;
		char name[256];
	} file = {
		.head = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1, .e_phoff = 64,
			 .e_ehsize = 64, .e_phentsize = 56, .e_phnum = 1},
		.interpreter = {.p_type = PT_INTERP, .p_offset = 120},
	};
	static char program[256];
	pthread_t thread;
	int loader, out;

	snprintf(file.name, sizeof(file.name), "%s/loader", place);
	snprintf(program, sizeof(program), "%s/program", place);
	file.interpreter.p_filesz = file.interpreter.p_memsz = strlen(file.name) + 1;
	memcpy(file.head.e_ident, ELFMAG "\2\1\1", 7);
	loader = open(file.name, O_RDWR | O_CREAT | O_CLOEXEC, 0700);
	out = open(program, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
	if (loader < 0 || write(out, &file, sizeof(file)) != sizeof(file))
		return 1;
	close(out);
	signal(SIGIO, SIG_IGN); /* the lease is not released */
	if (fcntl(loader, F_SETLEASE, F_WRLCK) < 0)
		return 1;
	pthread_create(&thread, NULL, execs_program, program);
	usleep(500000);
	say();
	wait_for_end_of_stdin();
	_exit(0);
}

static int endless(const char *place)
{
	char path[256];
	int file;

	snprintf(path, sizeof(path), "%s/libc.so.hole", place);
	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file < 0 || ftruncate(file, CODE_SIZE) < 0)
		return 1;
	for (int i = 0; i < MAPPINGS; i++) /* with gaps, so that they stay separate */
		if (mmap((void *)(0x100000000ul + (unsigned long)i * 2 * CODE_SIZE), CODE_SIZE,
			 PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, 0) == MAP_FAILED)
			return 1;
	say();
	return wait_for_end_of_stdin();
}

/* Makes nested directories and enters them: a path of almost 4 KiB. */
static void go_down(void)
{
	char name[240];

	memset(name, 'd', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	for (int i = 0; i < 16; i++)
		if (mkdir(name, 0700) || chdir(name))
			exit(1);
}

static int many(const char *place, const char *kind)
{
	bool code = !strcmp(kind, "many-code");
	char *text = malloc(4096);
	int program = open(self, O_RDONLY | O_CLOEXEC), file;

	if (chdir(place))
		return 1;
	go_down();
	file = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0700);
	if (file < 0 || ftruncate(file, 4096))
		return 1;
	if (!strcmp(kind, "many-elf") &&
	    (read(program, text, 4096) != 4096 || write(file, text, 4096) != 4096))
		return 1;
	for (int i = 0; i < 60000; i++) { /* all of the same page, so that they stay separate */
		volatile char *at = mmap(NULL, 4096, code ? PROT_READ | PROT_EXEC : PROT_READ,
					 MAP_PRIVATE, file, 0);

		if (at == MAP_FAILED)
			return 1;
		(void)*at;
	}
	say();
	return wait_for_end_of_stdin();
}

int main(int argc, char **argv)
{
	self = argv[0];
	if (argc < 3)
		return 0; /* after the exec */
	if (!strcmp(argv[1], "execs"))
		return execs();
	if (!strcmp(argv[1], "leased"))
		return leased(argv[2]);
	if (!strncmp(argv[1], "many", 4))
		return many(argv[2], argv[1]);
	return endless(argv[2]);
}
