/* SPDX-License-Identifier: MIT */
/* Asks the kernel for the first page of a range that matches: one call, one region. */
#include <errno.h>
#include <sys/ioctl.h>

#include "scan.h"
#include "shim.h"

int ps_first_region(int pagemap, uint64_t start, uint64_t end, const struct ps_masks *masks,
		    struct ps_page_region *ret)
{
	struct ps_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uint64_t)(uintptr_t)ret,
		.vec_len = 1,
		.max_pages = 1,
		.category_inverted = masks->inverted,
		.category_mask = masks->mask,
		.category_anyof_mask = masks->anyof,
		.return_mask = masks->returned,
	};
	int found = ioctl(pagemap, PS_PAGEMAP_SCAN, &arg);

	return found < 0 ? -errno : found;
}

int64_t ps_next_populated(int pagemap, uint64_t start, uint64_t end, const struct ps_masks *masks)
{
	const struct ps_masks populated = {
		.mask = masks->mask & PS_PAGE_IS_WPALLOWED,
		.inverted = masks->inverted & PS_PAGE_IS_WPALLOWED,
		.anyof = PS_PAGE_IS_PRESENT | PS_PAGE_IS_SWAPPED,
		.returned = PS_PAGE_IS_PRESENT,
	};
	struct ps_page_region first;
	int found = ps_first_region(pagemap, start, end, &populated, &first);

	if (found < 0)
		return found;
	return (int64_t)(found ? first.start : end);
}
