/* Prints the addresses of functions, one "ADDRESS NAME" per line, and waits. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

volatile char room[64];

__attribute__((noinline)) void exported(void)
{
	room[0]++;
}

__attribute__((noinline)) static void hidden(void)
{
	room[1]++;
}

static inline __attribute__((always_inline)) void inlined(int at)
{
	room[at]++;
}

__attribute__((noinline)) void outer(void)
{
	inlined(7);
}

int main(void)
{
	hidden();
	printf("%p exported\n%p hidden\n%p outer\n", (void *)exported, (void *)hidden, (void *)outer);
	printf("%p puts\n\n", (void *)puts);
	fflush(stdout);
	return (int)read(0, (char *)room, 1) + (room[0] == 77);
}
