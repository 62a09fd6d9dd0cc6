/* SPDX-License-Identifier: MIT */
/* The kernel's page geometry, for every file of the shim: no file assumes 4096 bytes or 2 MiB. */
#ifndef PAGESCAN_PAGE_H
#define PAGESCAN_PAGE_H

#include <stdint.h>
#include <unistd.h>

static inline uint64_t ps_page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Bytes that one page table of the lowest level maps: it is a page, with 8 bytes for each entry. */
static inline uint64_t ps_table_span(void)
{
	return ps_page_size() / sizeof(uint64_t) * ps_page_size();
}

#endif
