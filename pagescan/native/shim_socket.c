/* SPDX-License-Identifier: MIT */
/* Sends a message, and a descriptor with it, through a Unix socket; never waits. */
#define _GNU_SOURCE
#include "tracer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

union rights { /* the part of a message that carries one descriptor */
	char room[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header;
};

/* fd -1: no descriptor. 0, or -errno. */
int ps_send_message(int socket, const void *data, size_t size, int fd)
{
	struct iovec io = {(void *)data, size};
	union rights rights = {
		.header = {CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS},
	};
	struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = &rights;
		message.msg_controllen = sizeof(rights);
		memcpy(CMSG_DATA(&rights.header), &fd, sizeof(fd));
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size ? 0 : -errno;
}

/* 1: a message of that size. 0: the other end is closed. -errno: none, or not that size. */
int ps_receive_message(int socket, void *ret, size_t size, int *fd)
{
	struct iovec io = {ret, size};
	union rights rights;
	struct msghdr message = {
		.msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = &rights,
		.msg_controllen = sizeof(rights),
	};
	ssize_t length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	*fd = -1;
	if (length < 0)
		return errno == ECONNRESET ? 0 : -errno;
	if (message.msg_controllen >= CMSG_LEN(sizeof(*fd)))
		memcpy(fd, CMSG_DATA(&rights.header), sizeof(*fd));
	if (!length)
		return 0;
	return (size_t)length == size ? 1 : -EBADMSG;
}
