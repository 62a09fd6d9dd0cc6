/* SPDX-License-Identifier: MIT */
/*
 * The first process of a test machine: loads /modules/NUMBER in order, mounts the host's root
 * (read-only, below a tmpfs) and the shared folder, runs /run/shared/command in it, and turns the
 * machine off. Exit status and output are files of the shared folder.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NINE "trans=virtio,version=9p2000.L,msize=512000"

static void off(const char *what)
{
	if (what)
		fprintf(stderr, "init: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
}

static void put(const char *type, const char *from, const char *place, const char *options)
{
	mkdir(place, 0755);
	if (mount(from, place, type, 0, options) < 0)
		off(place);
}

static void load_modules(void)
{
	for (int i = 0;; i++) {
		char path[32];
		int fd;

		snprintf(path, sizeof(path), "/modules/%d", i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
			fprintf(stderr, "init: module %d: %s\n", i, strerror(errno));
		close(fd);
	}
}

static void build_root(void)
{
	put("9p", "root", "/lower", NINE ",cache=loose,ro");
	put("tmpfs", "tmpfs", "/upper", "size=60%");
	mkdir("/upper/new", 0755);
	mkdir("/upper/work", 0755);
	put("overlay", "overlay", "/new", "lowerdir=/lower,upperdir=/upper/new,workdir=/upper/work");
	put("proc", "proc", "/new/proc", NULL);
	put("sysfs", "sysfs", "/new/sys", NULL);
	put("devtmpfs", "dev", "/new/dev", NULL);
	put("devpts", "devpts", "/new/dev/pts", "mode=620,ptmxmode=666");
	put("tmpfs", "tmpfs", "/new/dev/shm", "mode=1777");
	put("tmpfs", "tmpfs", "/new/tmp", "mode=1777");
	put("tmpfs", "tmpfs", "/new/run", "mode=755");
	put("9p", "shared", "/new/run/shared", NINE ",cache=none");
	symlink("/proc/self/fd", "/new/dev/fd");
	if (chroot("/new") < 0 || chdir("/") < 0)
		off("chroot");
}

static int run_command(void)
{
	static char *words[] = {"/bin/sh", "/run/shared/command", NULL};
	int status = 0, out, nothing;
	pid_t pid = fork();

	if (pid == 0) {
		out = open("/run/shared/output", O_WRONLY | O_CREAT | O_APPEND, 0644);
		nothing = open("/dev/null", O_RDONLY);
		dup2(nothing, 0);
		dup2(out, 1);
		dup2(out, 2);
		close(out);
		close(nothing);
		setsid();
		execv(words[0], words);
		_exit(127);
	}
	while (waitpid(-1, &status, 0) != pid) /* orphans end here, too */
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void)
{
	FILE *file;
	int status;

	mkdir("/proc", 0755);
	load_modules();
	build_root();
	status = run_command();
	file = fopen("/run/shared/status.part", "w");
	if (file && fprintf(file, "%d\n", status) > 0 && !fclose(file))
		rename("/run/shared/status.part", "/run/shared/status");
	off(NULL);
	return 1;
}
