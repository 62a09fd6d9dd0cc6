"""Walks sampled stacks from frame to frame, by rules for addresses of code."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from typing import TYPE_CHECKING

from pagescan.native.door import check, ffi, i32, lib, u64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagescan.native.perf import Faults

END, FRAME, INTERPRETER = 0, 1, 2  # PS_RULE_*
NOTHING, NO_RULE, FOUND = 0, 1, 2  # PS_WALK_*
HOMES, RULE, WALK = 3, 12, 6  # PS_HOMES, PS_RULE, PS_WALK
_SPREAD, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


class FrameRules:
    """A hash table of rules, by the address of the code; see ps_frame_rules."""

    def __init__(self) -> None:
        """Begin without a rule."""
        self._c = ffi.new("struct ps_frame_rules *")
        self._rules: dict[int, tuple[int, ...]] = {}
        self._fill(1024)

    def _fill(self, size: int) -> None:
        self._size = size
        self._keys = array("Q", bytes(8 * size))
        self._values = array("i", bytes(4 * RULE * size))
        for address, rule in self._rules.items():
            self._place(address, rule)
        self._c.key, self._c.rule = u64(self._keys), i32(self._values)
        self._c.size = size

    def _place(self, address: int, rule: Sequence[int]) -> None:
        at = ((address * _SPREAD & _MASK) >> 20) & (self._size - 1)
        while self._keys[at] not in (0, address):
            at = (at + 1) & (self._size - 1)
        self._keys[at] = address
        self._values[at * RULE : (at + 1) * RULE] = array("i", rule)

    def __len__(self) -> int:
        return len(self._rules)

    def __getitem__(self, address: int) -> tuple[int, ...]:
        return self._rules[address]

    def __setitem__(self, address: int, rule: tuple[int, ...]) -> None:
        self._rules[address] = rule
        if 2 * len(self._rules) > self._size:
            self._fill(2 * self._size)
        else:
            self._place(address, rule)

    def walk(self, samples: Faults, pid: int, out: array[int]) -> int:
        """Walk the stacks of the samples of a process; return how many need a rule.

        Args:
            samples: The samples, with their stacks.
            pid: The process.
            out: Gets `WALK` numbers per sample; see ps_stacks_walk.
        """
        return check(lib.ps_stacks_walk(samples.c, pid, self._c, u64(out)))
