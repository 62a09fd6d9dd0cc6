"""Finds out where CPython's interpreter keeps the address of its current instruction.

Compilers keep this variable, next_instr, in one register nearly everywhere: the one
that the interpreter stores into its frame at the start of each instruction of Python.
If a called function has to preserve the register, it is there during the call, too.
Otherwise it, or a copy, was stored on the stack before the call. Only a store between
the start of the instruction and the call counts: older ones are of other functions.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_PRESERVED = {3: 1, 5: 2, 12: 5, 13: 6, 14: 7, 15: 8}
"""The place of a register in a row of a stack, plus 1, by its number in code."""
_INSTRUCTION = 0x38
"""Where a frame of CPython 3.11 to 3.13 has its instruction: prev_instr, instr_ptr."""
_LEAST_STORES, _LEAST_SHARE = 50, 0.8
_LONGEST = 1024
"""Bytes of machine code between the start of an instruction and a call."""
SP, BP = 4, 5
"""The numbers of rsp and rbp in instructions."""
_NO_BASE = -1
_BYTES_BEFORE = 12
"""The store into the frame may be a few instructions after the first one."""


class InstructionHomes:
    """The places of the instruction, in the machine code of an interpreter.

    Attributes:
        register: The number of the register that has it nearly everywhere; -1: there
            is no such register.
    """

    def __init__(self, code: bytes) -> None:
        """Read the machine code of the function that interprets bytecode."""
        self._code = code
        stores = [
            (move.at, move.register)
            for move in _moves(code)
            if move.offset == _INSTRUCTION and move.base not in (_NO_BASE, SP)
        ]
        counts = Counter(register for _, register in stores)
        self.register = -1
        for register, most in counts.most_common(1):
            if most >= max(_LEAST_STORES, _LEAST_SHARE * len(stores)):
                self.register = register
        self._begins = [at for at, register in stores if register == self.register]

    @property
    def preserved(self) -> int:
        """The place of the register in a row of a stack, plus 1; 0: calls change it."""
        return _PRESERVED.get(self.register, 0)

    @property
    def first(self) -> int:
        """Where the first instruction of Python begins; before, nothing has a home."""
        return self._begins[0] if self._begins else len(self._code)

    def words(self, call: int, base: int) -> list[int]:
        """Return where copies of the instruction may be on the stack during a call.

        Args:
            call: The offset of the return address in the code.
            base: The register to which the words are relative: `SP` or `BP`.

        Returns:
            Offsets from the register; the latest store first.
        """
        piece = self._code[self._begin(call) : call]
        copies = {self.register}
        words: dict[int, int] = {}
        for move in sorted((*_moves(piece), *_sums(piece))):
            if move.register not in copies:
                continue
            if move.base == _NO_BASE:
                copies.add(move.offset)
            elif move.base == base:
                words[move.offset] = move.at
        return sorted(words, key=words.__getitem__, reverse=True)

    def _begin(self, call: int) -> int:
        """Return where the code begins that surely runs before a call, at the latest.

        An indirect jump ends the code of an instruction of Python, unless an earlier
        jump leads to what is behind it.
        """
        least = max(0, call - _LONGEST)
        last = bisect_right(self._begins, call) - 1
        begin = max(least, self._begins[last] - _BYTES_BEFORE if last >= 0 else 0)
        jumps = [found.end() for found in _JUMP.finditer(self._code, begin, call)]
        if not jumps or (begin > least and self._leads(begin, jumps[-1], call)):
            return begin
        return jumps[-1]

    def _leads(self, begin: int, first: int, call: int) -> bool:
        """Whether a jump between two places leads to code before a call."""
        piece = self._code[begin:first]
        targets = [
            (found.end() + int.from_bytes(found[1], "little", signed=True))
            for found in _BRANCH.finditer(piece)
        ]
        targets += [
            at + 2 + int.from_bytes(piece[at + 1 : at + 2], "little", signed=True)
            for at in range(len(piece))
            if 0x70 <= piece[at] <= 0x7F
        ]
        return any(first <= begin + target < call for target in targets)


class _Move(NamedTuple):
    """A move from a register; without a base the offset is the other register."""

    at: int
    register: int
    base: int
    offset: int


def _moves(code: bytes) -> Iterator[_Move]:
    """Yield the moves of 8 bytes from a register: mov %register,..."""
    for found in _MOVE.finditer(code):
        at = found.start()
        prefix, modrm = found[1][0], found[1][2]
        register = modrm >> 3 & 7 | (prefix & 4) << 1
        mode, low = modrm >> 6, modrm & 7
        other = low | (prefix & 1) << 3
        if mode == 3:
            yield _Move(at, register, _NO_BASE, other)
            continue
        start = at + 3
        if low == 4:  # another byte tells the base: here one without an index
            if code[start : start + 1] != b"\x24":
                continue
            start += 1
        size = 1 if mode == 1 else 4
        raw = code[start : start + size]
        if mode and len(raw) == size:
            yield _Move(at, register, other, int.from_bytes(raw, "little", signed=True))


def _sums(code: bytes) -> Iterator[_Move]:
    """Yield the copies that are a few bytes further: lea 2(%register),%copy."""
    for found in _SUM.finditer(code):
        prefix, modrm = found[1][0], found[1][2]
        register = modrm & 7 | (prefix & 1) << 3
        copy = modrm >> 3 & 7 | (prefix & 4) << 1
        if modrm & 7 != 4 or (found[1][3] == 0x24 and prefix & 1):
            yield _Move(found.start(), register, _NO_BASE, copy)


_MOVE = re.compile(rb"(?=([\x48-\x4f]\x89[\x40-\xff]))", re.DOTALL)
_SUM = re.compile(rb"(?=([\x48-\x4f]\x8d[\x40-\x7f].))", re.DOTALL)
_JUMP = re.compile(rb"\xff(?:[\xe0-\xe7]|\x24.)", re.DOTALL)
"""jmp *%register; jmp *(%register,%register,8)."""
_BRANCH = re.compile(rb"\x0f[\x80-\x8f](....)", re.DOTALL)
"""A conditional jump with a distance of 4 bytes; those of 1 byte are 0x70 to 0x7f."""
