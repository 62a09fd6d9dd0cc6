/* SPDX-License-Identifier: MIT */
/* Shared by the files of the start of a program and of its tracer; shim_tracer.c explains it. */
#ifndef PAGESCAN_TRACER_H
#define PAGESCAN_TRACER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shim.h"

/* From pagescan to the tracer. */
enum ps_order {
	PS_ORDER_STAY,	 /* pagescan looks: hold the program for a longer time */
	PS_ORDER_ATTACH, /* take a userfaultfd out of the standing program */
	PS_ORDER_GO,	 /* let it go on */
};

struct ps_request {
	int32_t order;
	struct ps_attach call;
};

/* From the tracer to pagescan; with PS_EVENT_ATTACHED a descriptor may come, too. */
struct ps_message {
	int32_t event; /* enum ps_event */
	int32_t error;
	struct ps_attach call;
};

_Noreturn void ps_trace(pid_t pid, int socket, int begin);

int ps_send_message(int socket, const void *data, size_t size, int fd);
int ps_receive_message(int socket, void *ret, size_t size, int *fd);

#endif
