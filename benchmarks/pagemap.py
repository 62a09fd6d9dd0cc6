"""pagemap.py PID: does the same as pagemap.c, in straightforward Python."""

import json
import os
import sys
import time
from array import array
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
PRESENT, UFFD_WP = 1 << 63, 1 << 57
CHUNK = 1 << 20


def main(pid: str) -> None:
    """Count present and uffd-wp pages."""
    begun = time.perf_counter_ns()
    present = protected = 0
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start >> 63:
            continue
        at, stop = start // PAGE * 8, end // PAGE * 8
        while at < stop:
            data = os.pread(fd, min(CHUNK, stop - at), at)
            if not data:
                break
            for word in array("Q", data):
                if word & PRESENT:
                    present += 1
                if word & UFFD_WP:
                    protected += 1
            at += len(data)
    ns = time.perf_counter_ns() - begun
    sys.stdout.write(json.dumps({"ns": ns, "present": present, "wp": protected}) + "\n")


main(sys.argv[1])
