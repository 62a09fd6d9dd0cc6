/* SPDX-License-Identifier: MIT */
/*
 * A target that waits in one system call after another: waiting KIND STATUS
 *
 * Another thread ends each wait after 3 ms; none has a timeout and there are no signals, so only a
 * tracer can cause a result of EINTR or a short one. STATUS as in steadfast.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "status.h"

#define FILE_SIZE (64l << 20)

static volatile struct status *status;
static const char *kind;
static int channel[2], poller, semaphores, queue, event, file, other, notify, memory;
static mqd_t mailbox;
static char path[256];
static aio_context_t aio;
static int ring;
static struct io_uring_params ring_params;
static uint8_t *sq, *cq;
static struct io_uring_sqe *sqes;

static void fault(uint64_t code)
{
	status->faults++;
	status->last_fault = code;
}

static void nap(void)
{
	struct timespec left = {0, 3000000};

	while (nanosleep(&left, &left))
		;
}

/* ---- the calls ---------------------------------------------------------------------- */

static long drain(long ready)
{
	char byte;

	if (ready >= 0 && read(channel[0], &byte, 1) != 1)
		fault(1);
	return ready;
}

static long in_epoll_wait(void)
{
	struct epoll_event got;

	return drain(syscall(SYS_epoll_wait, poller, &got, 1, -1));
}

static long in_epoll_pwait(void)
{
	uint64_t mask = 0;
	struct epoll_event got;

	return drain(syscall(SYS_epoll_pwait, poller, &got, 1, -1, &mask, 8));
}

static long in_epoll_pwait2(void)
{
	struct epoll_event got;

	return drain(syscall(441, poller, &got, 1, NULL, NULL, 0));
}

static long in_ppoll(void)
{
	struct pollfd one = {channel[0], POLLIN, 0};

	return drain(syscall(SYS_ppoll, &one, 1, NULL, NULL, 8));
}

static long in_pselect(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(channel[0], &set);
	return drain(pselect(channel[0] + 1, &set, NULL, NULL, NULL, NULL));
}

static long in_recv(void)
{
	char byte;

	return recv(channel[0], &byte, 1, MSG_WAITALL);
}

static void send_byte(void)
{
	if (write(channel[1], "x", 1) != 1)
		fault(2);
}

static long in_semop(void)
{
	struct sembuf down = {0, -1, 0};

	return semop(semaphores, &down, 1);
}

static long in_semtimedop(void)
{
	struct sembuf down = {0, -1, 0};

	return syscall(SYS_semtimedop, semaphores, &down, 1, NULL);
}

static void up(void)
{
	struct sembuf more = {0, 1, 0};

	if (semop(semaphores, &more, 1))
		fault(3);
}

static long in_msgrcv(void)
{
	struct {
		long type;
		char text[8];
	} message;

	return msgrcv(queue, &message, sizeof(message.text), 0, 0);
}

static void send_message(void)
{
	struct {
		long type;
		char text[8];
	} message = {1, "x"};

	if (msgsnd(queue, &message, sizeof(message.text), 0))
		fault(4);
}

static long in_mq_receive(void)
{
	char text[64];

	return mq_receive(mailbox, text, sizeof(text), NULL);
}

static void send_mail(void)
{
	if (mq_send(mailbox, "x", 1, 0))
		fault(5);
}

static long in_eventfd(void)
{
	uint64_t count;

	return read(event, &count, sizeof(count));
}

static void count_up(void)
{
	uint64_t one = 1;

	if (write(event, &one, sizeof(one)) != sizeof(one))
		fault(6);
}

static long in_inotify(void)
{
	char text[512] __attribute__((aligned(8)));

	return read(notify, text, sizeof(text));
}

static void touch(void)
{
	if (pwrite(file, "x", 1, 0) != 1)
		fault(7);
}

static long in_flock(void)
{
	long result = flock(other, LOCK_EX);

	if (!result)
		flock(other, LOCK_UN);
	return result;
}

static void hold_flock(void)
{
	flock(file, LOCK_EX);
	nap();
	flock(file, LOCK_UN);
}

static long in_setlkw(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_len = 1};
	long result = fcntl(other, F_OFD_SETLKW, &lock);

	lock.l_type = F_UNLCK;
	if (!result)
		fcntl(other, F_OFD_SETLK, &lock);
	return result;
}

static void hold_lock(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_len = 1};

	fcntl(file, F_OFD_SETLKW, &lock);
	nap();
	lock.l_type = F_UNLCK;
	fcntl(file, F_OFD_SETLK, &lock);
}

static long in_fallocate(void)
{
	long result = fallocate(memory, 0, 0, FILE_SIZE);

	if (fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, FILE_SIZE))
		fault(8);
	return result;
}

static long in_io_getevents(void)
{
	struct iocb poll_it = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)channel[0]},
		    *list = &poll_it;
	struct io_event got;

	poll_it.aio_buf = POLLIN;
	if (syscall(SYS_io_submit, aio, 1, &list) != 1)
		fault(9);
	for (long result;;) {
		result = syscall(SYS_io_getevents, aio, 1, 1, &got, NULL);
		if (result >= 0)
			return drain(result);
		if (errno != EINTR)
			fault(10);
		status->interrupted++;
	}
}

static uint32_t *of_ring(uint8_t *base, uint32_t offset)
{
	return (uint32_t *)(void *)(base + offset);
}

static long in_io_uring(void)
{
	uint32_t *tail = of_ring(sq, ring_params.sq_off.tail);
	uint32_t slot = *tail & *of_ring(sq, ring_params.sq_off.ring_mask);

	memset(&sqes[slot], 0, sizeof(sqes[slot]));
	sqes[slot].opcode = IORING_OP_POLL_ADD;
	sqes[slot].fd = channel[0];
	sqes[slot].poll32_events = POLLIN;
	of_ring(sq, ring_params.sq_off.array)[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
		fault(11);
	for (long result;;) {
		result = syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
		if (result < 0 && errno == EINTR) {
			status->interrupted++;
			continue;
		}
		if (result < 0 ||
		    *of_ring(cq, ring_params.cq_off.head) ==
			    __atomic_load_n(of_ring(cq, ring_params.cq_off.tail), __ATOMIC_ACQUIRE))
			fault(12);
		__atomic_add_fetch(of_ring(cq, ring_params.cq_off.head), 1, __ATOMIC_RELEASE);
		return drain(0);
	}
}

/* ---- preparations -------------------------------------------------------------------------- */

static void make_ring(void)
{
	size_t size;

	ring = (int)syscall(SYS_io_uring_setup, 4, &ring_params);
	if (ring < 0)
		exit(77);
	size = ring_params.cq_off.cqes + ring_params.cq_entries * sizeof(struct io_uring_cqe) +
	       4096;
	sq = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
		  IORING_OFF_SQ_RING);
	cq = sq; /* IORING_FEAT_SINGLE_MMAP */
	sqes = mmap(NULL, 4 * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		    IORING_OFF_SQES);
}

static void make_all(const char *counters)
{
	struct mq_attr attributes = {.mq_maxmsg = 8, .mq_msgsize = 64};
	struct epoll_event in = {EPOLLIN, {0}};

	unshare(CLONE_NEWIPC); /* which has its own objects */
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel))
		fault(20);
	poller = epoll_create1(0);
	epoll_ctl(poller, EPOLL_CTL_ADD, channel[0], &in);
	if (!strncmp(kind, "sem", 3)) {
		semaphores = semget(IPC_PRIVATE, 1, 0600);
	} else if (!strcmp(kind, "msgrcv")) {
		queue = msgget(IPC_PRIVATE, 0600);
	} else if (!strcmp(kind, "mq_receive")) {
		mailbox = mq_open("/waiting", O_CREAT | O_RDWR, 0600, &attributes);
		mq_unlink("/waiting");
	}
	event = eventfd(0, 0);
	memory = memfd_create("waiting", 0);
	snprintf(path, sizeof(path), "%s.locked", counters);
	file = open(path, O_RDWR | O_CREAT, 0600);
	other = open(path, O_RDWR);
	notify = inotify_init1(0);
	inotify_add_watch(notify, path, IN_MODIFY);
	if (!strcmp(kind, "io_getevents") && syscall(SYS_io_setup, 4, &aio))
		exit(77);
	if (!strcmp(kind, "io_uring_enter"))
		make_ring();
}

static const struct {
	const char *name;
	long (*wait)(void);
	void (*wake)(void);
} kinds[] = {
	{"epoll_wait", in_epoll_wait, send_byte},
	{"epoll_pwait", in_epoll_pwait, send_byte},
	{"epoll_pwait2", in_epoll_pwait2, send_byte},
	{"ppoll", in_ppoll, send_byte},
	{"pselect", in_pselect, send_byte},
	{"recv", in_recv, send_byte},
	{"semop", in_semop, up},
	{"semtimedop", in_semtimedop, up},
	{"msgrcv", in_msgrcv, send_message},
	{"mq_receive", in_mq_receive, send_mail},
	{"eventfd", in_eventfd, count_up},
	{"inotify", in_inotify, touch},
	{"flock", in_flock, hold_flock},
	{"setlkw", in_setlkw, hold_lock},
	{"fallocate", in_fallocate, NULL},
	{"io_getevents", in_io_getevents, send_byte},
	{"io_uring_enter", in_io_uring, send_byte},
};

static void *wake(void *which)
{
	void (*how)(void) = *(void (**)(void))which;

	for (uint64_t round = 0; how; nap()) {
		if (strcmp(kind, "flock") && strcmp(kind, "setlkw") && status->rounds < round)
			continue; /* it has not reached the next wait */
		how();
		round++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int fd;

	if (argc != 3)
		return 2;
	kind = argv[1];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = open(argv[2], O_RDWR | O_CLOEXEC);
	status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (status == MAP_FAILED)
		return 2;
	close(fd);
	make_all(argv[2]);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(kind, kinds[i].name))
			continue;
		pthread_create(&thread, NULL, wake, (void *)&kinds[i].wake);
		for (;; status->rounds++) {
			while (kinds[i].wait() < 0) {
				if (errno != EINTR)
					fault(100 + (uint64_t)errno);
				status->interrupted++;
			}
		}
	}
	return 2;
}
