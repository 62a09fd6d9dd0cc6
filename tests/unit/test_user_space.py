"""The end of a process's address space: above 2^47 on some processors."""

import pytest

from pagescan import native
from pagescan.model.memory import PAGE_SIZE, Mapping
from pagescan.target.kernel import end_of_accepted, user_space_end
from pagescan.target.selection import Selection
from pagescan.tracking.own_writes import WrittenPages, own_writes

FIVE_LEVELS = b"""\
00400000-00401000 r-xp 00000000 08:01 7                          /bin/x
7ffff7fc5000-7ffff7fc7000 r-xp 00000000 00:00 0                  [vdso]
fe000000000000-fe000000004000 rw-p 00000000 00:00 0 \n"""
ARM64 = b"""\
aaaac0a60000-aaaac0a61000 r-xp 00000000 fe:01 7                  /bin/x
ffffad5b7000-ffffad5b9000 r-xp 00000000 00:00 0                  [vdso]
fffffffdf000-1000000000000 rw-p 00000000 00:00 0                 [stack]
"""
ARM64_LVA = b"fffffffff0000-10000000000000 rw-p 00000000 00:00 0 \n"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (FIVE_LEVELS, (1 << 56) - PAGE_SIZE),
        (ARM64, 1 << 48),
        (ARM64_LVA, 1 << 52),
        (b"7ffff7fc5000-7ffff7fc7000 r-xp 00000000 00:00 0 \n", (1 << 47) - PAGE_SIZE),
        (b"3ffffff000-4000000000 r-xp 00000000 00:00 0 \n", 1 << 38),
    ],
    ids=["x86-64, 5 levels", "arm64", "arm64, 52 bits", "x86-64", "riscv, sv39"],
)
def test_no_mapping_lies_beyond(text: bytes, end: int) -> None:
    """The bound is the kernel's, to the page, and the last mapping lies below it."""
    found = end_of_accepted(lambda address: address <= end)
    assert found == end
    rows = native.parse_maps(text)
    assert rows.end[-1] <= found
    last = Mapping(rows.start[-1], rows.end[-1], "rw-p", 0, (0, 0), 0, "", 0)
    words = Selection.parse([f"{last.start:#x}-{last.end:#x}"])
    assert list(words.select([last])) == [last]


def test_a_kernel_that_accepts_all_has_a_bound() -> None:
    """Like Linux 6.7 on x86-64: the bound costs nothing, nothing lies beyond."""
    assert end_of_accepted(lambda _: True) == 1 << 57


def test_of_this_kernel() -> None:
    """All of this process lies below the bound, and new memory is sought up to it."""
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps if "[vsyscall]" not in line]
    assert int(lines[-1][0].partition("-")[2], 16) <= user_space_end()
    with WrittenPages():
        [block] = own_writes.blocks
        [[spans], *_] = block.prepared.outside._held
        assert (spans.starts[0], spans.ends[0]) == (0, user_space_end())
