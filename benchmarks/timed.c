/* SPDX-License-Identifier: MIT */
/*
 * timed OUT COMMAND [ARG]...: runs a command with stdout to a file and prints what it cost:
 * {"wall": s, "cpu": s, "rss": bytes, "code": n}.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	struct timespec begun, ended;
	struct rusage used;
	int status;
	pid_t child;

	if (argc < 3)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	child = fork();
	if (!child) {
		int out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (out < 0 || dup2(out, 1) < 0)
			_exit(126);
		close(out);
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &used) < 0)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("{\"wall\": %.6f, \"cpu\": %.6f, \"rss\": %ld, \"code\": %d}\n",
	       (double)(ended.tv_sec - begun.tv_sec) +
		       (double)(ended.tv_nsec - begun.tv_nsec) / 1e9,
	       seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss * 1024L,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
