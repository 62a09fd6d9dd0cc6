"""Names the kernel's functions; source: /proc/kallsyms, complete for root only."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

LOWEST = 1 << 63
"""Addresses from here on are the kernel's."""
_CODE = frozenset(b"tTwW")


class KernelTable(NamedTuple):
    """The kernel's functions by address, with their modules."""

    starts: array[int]
    names: list[bytes]
    modules: list[bytes]

    def at(self, address: int) -> tuple[str | None, str, int]:
        """Return function, module and offset in it, for an address of the kernel."""
        last = bisect_right(self.starts, address) - 1
        if last < 0:
            return None, "[kernel]", address
        module = self.modules[last].decode(errors="backslashreplace") or "[kernel]"
        name = self.names[last].decode(errors="backslashreplace")
        return name, module, address - self.starts[last]


@lru_cache(maxsize=1)
def kernel_table() -> KernelTable:
    """Read the kernel's names; the table is empty where the kernel hides them."""
    rows = []
    try:
        with open("/proc/kallsyms", "rb") as file:
            for line in file:
                fields = line.split()
                if fields[1][0] in _CODE:
                    module = fields[3] if len(fields) > 3 else b""
                    rows.append((int(fields[0], 16), fields[2], module))
    except (OSError, IndexError, ValueError):
        rows = []
    rows = [row for row in rows if row[0] >= LOWEST]
    rows.sort(key=lambda row: row[0])
    return KernelTable(
        array("Q", [row[0] for row in rows]),
        [row[1] for row in rows],
        [row[2] for row in rows],
    )
