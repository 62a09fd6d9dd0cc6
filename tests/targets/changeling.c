/* SPDX-License-Identifier: MIT */
/*
 * changeling CODE SECOND LINK: maps CODE and SECOND as code that has no instructions to borrow.
 * When CODE is opened it unmaps SECOND and replaces it by a symbolic link to LINK.
 *
 * It has no libc, so that there is no other code to open. Prints a line when it is ready, waits for
 * the end of its stdin, exits with 0.
 */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall; nop"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define READ 0
#define WRITE 1
#define OPEN 2
#define POLL 7
#define MMAP 9
#define MUNMAP 11
#define EXIT 60
#define UNLINK 87
#define SYMLINK 88
#define INOTIFY_ADD_WATCH 254
#define INOTIFY_INIT1 294
#define IN_OPEN 0x20
#define EXECUTABLE 5 /* PROT_READ | PROT_EXEC */
#define PRIVATE_FIXED 0x12
#define SIZE (64L << 20)

static void run(char **argv)
{
	struct {
		int fd;
		short wanted, got;
	} files[2] = {{0, 1, 0}, {0, 1, 0}};
	long code = call(OPEN, (long)argv[1], 0, 0, 0, 0, 0);
	long second = call(OPEN, (long)argv[2], 0, 0, 0, 0, 0), at = 0x100000000;
	long notify = call(INOTIFY_INIT1, 0, 0, 0, 0, 0, 0);
	char event[4096];

	call(MMAP, at, SIZE, EXECUTABLE, PRIVATE_FIXED, code, 0);
	call(MMAP, at + 2 * SIZE, SIZE, EXECUTABLE, PRIVATE_FIXED, second, 0);
	call(INOTIFY_ADD_WATCH, notify, (long)argv[1], IN_OPEN, 0, 0, 0);
	call(WRITE, 1, (long)"ready\n", 6, 0, 0, 0);
	files[1].fd = (int)notify;
	while (call(POLL, (long)files, 2, -1, 0, 0, 0) < 0 || !files[0].got) {
		if (!files[1].got)
			continue;
		call(READ, notify, (long)event, sizeof(event), 0, 0, 0);
		call(MUNMAP, at + 2 * SIZE, SIZE, 0, 0, 0, 0);
		call(UNLINK, (long)argv[2], 0, 0, 0, 0, 0);
		call(SYMLINK, (long)argv[3], (long)argv[2], 0, 0, 0, 0);
		files[1].fd = -1;
		files[1].got = 0;
	}
	call(EXIT, 0, 0, 0, 0, 0, 0);
}

__attribute__((used)) static void begin(long *stack)
{
	run((char **)(stack + 1));
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
