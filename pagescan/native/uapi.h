/* SPDX-License-Identifier: MIT */
/*
 * The kernel's constants and structures, by value, because installed headers may be older than the
 * running kernel. What that kernel supports is found out by trying, never from headers.
 *
 * Source: include/uapi/linux/fs.h and userfaultfd.h of Linux 6.18; PAGEMAP_SCAN(2const).
 */
#ifndef PAGESCAN_UAPI_H
#define PAGESCAN_UAPI_H

#include <stdint.h>

/* ---- PAGEMAP_SCAN, an ioctl on /proc/PID/pagemap (Linux 6.7) ------------------------------- */

#define PS_PAGEMAP_SCAN 0xc0606610u

#define PS_PM_SCAN_WP_MATCHING 1u
#define PS_PM_SCAN_CHECK_WPASYNC 2u

#define PS_PAGE_IS_WPALLOWED 0x001u
#define PS_PAGE_IS_WRITTEN 0x002u
#define PS_PAGE_IS_FILE 0x004u
#define PS_PAGE_IS_PRESENT 0x008u
#define PS_PAGE_IS_SWAPPED 0x010u
#define PS_PAGE_IS_PFNZERO 0x020u
#define PS_PAGE_IS_HUGE 0x040u
#define PS_PAGE_IS_SOFT_DIRTY 0x080u /* 6.8 */
#define PS_PAGE_IS_GUARD 0x100u      /* 6.16 */

struct ps_page_region {
	uint64_t start;
	uint64_t end; /* exclusive */
	uint64_t categories;
};

struct ps_pm_scan_arg {
	uint64_t size; /* of this structure: 96 */
	uint64_t flags;
	uint64_t start;
	uint64_t end;      /* exclusive */
	uint64_t walk_end; /* out: where the walk stopped */
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages; /* 0: no limit */
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};
_Static_assert(sizeof(struct ps_pm_scan_arg) == 96, "the kernel checks the size");

/* ---- userfaultfd --------------------------------------------------------------------------- */

#ifndef SYS_userfaultfd
#if defined(__x86_64__)
#define SYS_userfaultfd 323
#elif defined(__aarch64__)
#define SYS_userfaultfd 282
#endif
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#ifndef SYS_process_madvise
#define SYS_process_madvise 440 /* 5.10 */
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451 /* 6.5 */
#endif
#define PS_MADV_COLLAPSE 25 /* 6.1 */

#define PS_UFFD_USER_MODE_ONLY 1u /* 5.11: never refused, and enough for write-protect */

#define PS_UFFD_API 0xaaull
#define PS_UFFDIO_API 0xc018aa3fu
#define PS_UFFDIO_REGISTER 0xc020aa00u
#define PS_UFFDIO_UNREGISTER 0x8010aa01u
#define PS_UFFDIO_WRITEPROTECT 0xc018aa06u

#define PS_UFFD_FEATURE_WP_HUGETLBFS_SHMEM 0x1000u /* 5.19 */
#define PS_UFFD_FEATURE_WP_UNPOPULATED 0x2000u     /* 6.4 */
#define PS_UFFD_FEATURE_WP_ASYNC 0x8000u           /* 6.7 */
#define PS_UFFD_FEATURES                                                                           \
	(PS_UFFD_FEATURE_WP_ASYNC | PS_UFFD_FEATURE_WP_UNPOPULATED |                               \
	 PS_UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

#define PS_UFFDIO_REGISTER_MODE_WP 2u
#define PS_UFFDIO_WRITEPROTECT_MODE_WP 1u

struct ps_uffdio_api {
	uint64_t api;
	uint64_t features;
	uint64_t ioctls;
};

struct ps_uffdio_range {
	uint64_t start;
	uint64_t len;
};

struct ps_uffdio_register {
	struct ps_uffdio_range range;
	uint64_t mode;
	uint64_t ioctls;
};

struct ps_uffdio_writeprotect {
	struct ps_uffdio_range range;
	uint64_t mode;
};

/* ---- PROCMAP_QUERY, an ioctl on /proc/PID/maps (Linux 6.11) -------------------------------- */

#define PS_PROCMAP_QUERY 0xc0686611u
#define PS_PROCMAP_QUERY_VMA_SHARED 0x08u
#define PS_PROCMAP_QUERY_COVERING_OR_NEXT_VMA 0x10u

struct ps_procmap_query {
	uint64_t size; /* of this structure: 104 */
	uint64_t query_flags;
	uint64_t query_addr;
	uint64_t vma_start;
	uint64_t vma_end;
	uint64_t vma_flags;
	uint64_t vma_page_size; /* more than a page: hugetlb */
	uint64_t vma_offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t vma_name_size;
	uint32_t build_id_size;
	uint64_t vma_name_addr;
	uint64_t build_id_addr;
};
_Static_assert(sizeof(struct ps_procmap_query) == 104, "the kernel checks the size");

/* A word of /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst. */
#define PS_PM_PRESENT	(1ull << 63)
#define PS_PM_SWAPPED	(1ull << 62)
#define PS_PM_GUARD	(1ull << 58)
#define PS_PM_EXCLUSIVE (1ull << 56)
#define PS_PM_SWAP_TYPE 0x1full
#define PS_PM_MARKER	31u

#endif
