/* SPDX-License-Identifier: MIT */
/* pagemap PID: counts present and uffd-wp pages from /proc/PID/pagemap: {"ns", "present", "wp"}. */
#define _GNU_SOURCE
#include "answer.h"

#include <fcntl.h>
#include <unistd.h>

#define CHUNK (1u << 17)

static uint64_t words[CHUNK];

int main(int argc, char **argv)
{
	uint64_t begun = now_ns(), start, end, present = 0, protected = 0;
	char path[64], line[4352];
	FILE *maps;
	int pagemap;

	if (argc != 2)
		return 2;
	snprintf(path, sizeof(path), "/proc/%s/maps", argv[1]);
	maps = fopen(path, "re");
	snprintf(path, sizeof(path), "/proc/%s/pagemap", argv[1]);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (!maps || pagemap < 0)
		return 1;
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &start, &end) != 2 || start >> 63)
			continue;
		for (uint64_t at = start / 4096; at < end / 4096;) {
			uint64_t left = end / 4096 - at, want = left < CHUNK ? left : CHUNK;
			ssize_t got = pread(pagemap, words, want * 8, (off_t)(at * 8));

			if (got <= 0)
				break;
			for (ssize_t i = 0; i < got / 8; i++) {
				present += words[i] >> 63;
				protected += words[i] >> 57 & 1;
			}
			at += (uint64_t)got / 8;
		}
	}
	printf("{\"ns\": %lu, \"present\": %lu, \"wp\": %lu}\n", now_ns() - begun, present,
	       protected);
	return 0;
}
