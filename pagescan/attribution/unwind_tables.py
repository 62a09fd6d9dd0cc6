"""Reads how to get from a frame of the stack to its caller: .eh_frame of ELF files.

The target chooses the file, so nothing in it is trusted: what cannot be read, or has a
form that compilers do not write for C, has no rule.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from pagescan.attribution.elf import BadElfError, Elf

_LARGEST = 64 << 20
_POINTER = 0x1B  # DW_EH_PE_pcrel | DW_EH_PE_sdata4
_HEADER = b"\1\x1b\3\x3b"
"""Version; encodings of the pointer, of the count and of the table."""
_MOST_STEPS = 4096
_RSP, _RETURN = 7, 16
SAVED = (3, 6, 12, 13, 14, 15)
"""DWARF's numbers of rbx, rbp and r12 to r15; source: the psABI of x86-64."""


class FrameRule(NamedTuple):
    """Where a frame ends and what it has saved.

    Attributes:
        base: DWARF's number of the register that is near the upper end of the frame.
        offset: How far below the end the register points.
        saved: Offsets from the end to the saved registers, as in `SAVED`; 0: not saved.
        is_part: The code is a part of a function, elsewhere than the function.
    """

    base: int
    offset: int
    saved: tuple[int, ...]
    is_part: bool


class _NoRuleError(Exception):
    """The code has no rule that is understood."""


class UnwindTable:
    """The rules of the code of one ELF file."""

    def __init__(self, elf: Elf) -> None:
        """Read the sections; a file without them has no rules."""
        self.address = elf.address
        self._frames = elf.data(".eh_frame", _LARGEST)
        header = elf.data(".eh_frame_hdr", _LARGEST)
        self._starts, self._places = array("q"), array("q")
        if not self._frames or header[:4] != _HEADER:
            return
        self._base = elf.address(elf.sections[".eh_frame"].offset)
        base = elf.address(elf.sections[".eh_frame_hdr"].offset)
        (count,) = struct.unpack_from("<I", header, 8)
        table = array("i", header[12 : 12 + 8 * min(count, (len(header) - 12) // 8)])
        self._starts = array("q", [base + start for start in table[::2]])
        self._places = array("q", [base + place for place in table[1::2]])

    def at(self, address: int) -> FrameRule | None:
        """Return the rule at an address of the file; None: no rule covers it."""
        last = bisect_right(self._starts, address) - 1
        if last < 0:
            return None
        try:
            return self._rule(self._places[last] - self._base, address)
        except (_NoRuleError, BadElfError, IndexError, struct.error, OverflowError):
            return None

    def _rule(self, place: int, address: int) -> FrameRule:
        """Return the rule of an address in a description of frames."""
        entry = _Reader(self._frames, place)
        end = entry.entry_end()
        at = entry.at
        common = _Common(self._frames, at - entry.number("<I"))
        start = self._base + entry.at + entry.number("<i")
        if not start <= address < start + entry.number("<I"):
            raise _NoRuleError
        size = entry.unsigned()
        entry.at += size  # what C++ needs to handle exceptions
        program = _Program(common)
        program.run(entry, end, address - start)
        if program.base < 0 or program.saved.get(_RETURN) != -8:
            raise _NoRuleError
        return FrameRule(
            program.base,
            program.offset,
            tuple(program.saved.get(number, 0) for number in SAVED),
            program.first != (_RSP, 8),
        )


class _Reader:
    """Numbers of a section, from a place on."""

    def __init__(self, data: bytes, at: int) -> None:
        if at < 0:
            raise _NoRuleError
        self.data, self.at = data, at

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return int(value)

    def entry_end(self) -> int:
        """Read the length of an entry; return where it ends."""
        length = self.number("<I")
        if not 4 < length < 1 << 31:
            raise _NoRuleError
        return self.at + length

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise _NoRuleError

    def signed(self) -> int:
        start = self.at
        value = self.unsigned()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value


class _Common:
    """What several descriptions have in common (CIE)."""

    def __init__(self, data: bytes, place: int) -> None:
        entry = _Reader(data, place)
        self.end = entry.entry_end()
        if entry.number("<I") or entry.number("B") != 1:
            raise _NoRuleError
        end = data.index(b"\0", entry.at, self.end)
        letters = data[entry.at : end]
        entry.at = end + 1
        self.code, self.data = entry.unsigned(), entry.signed()
        if entry.unsigned() != _RETURN or letters[:1] != b"z":
            raise _NoRuleError
        begin = entry.unsigned() + entry.at
        for letter in letters[1:]:
            self._read_letter(letter, entry)
        self.program = _Reader(data, begin)

    @staticmethod
    def _read_letter(letter: int, entry: _Reader) -> None:
        if letter == ord("R"):
            if entry.number("B") != _POINTER:
                raise _NoRuleError
        elif letter == ord("P"):
            size = {0: 8, 2: 2, 3: 4, 4: 8}[entry.number("B") & 7]
            entry.at += size
        elif letter == ord("L"):
            entry.at += 1
        else:  # S: the frame of a signal
            raise _NoRuleError


class _Program:
    """Runs the instructions of call frames; source: DWARF 5, 6.4.2.

    Attributes:
        base: The register near the upper end of the frame; -1: an expression.
        offset: How far below the end it points.
        saved: Offsets from the end, by register.
        first: Base and offset at the first instruction of the code.
    """

    def __init__(self, common: _Common) -> None:
        """Run the common part."""
        self.base, self.offset = -1, 0
        self.saved: dict[int, int] = {}
        self.first: tuple[int, int] | None = None
        self._code, self._data = common.code, common.data
        self._kept: list[tuple[int, int, dict[int, int]]] = []
        self._initial: dict[int, int] = {}
        self._run(common.program, common.end, 1)
        self._initial = dict(self.saved)
        self.first = None

    def run(self, program: _Reader, end: int, distance: int) -> None:
        """Run the instructions of a piece of code up to a distance from its start."""
        self._run(program, end, distance + 1)
        if self.first is None:
            self.first = self.base, self.offset

    def _run(self, program: _Reader, end: int, distance: int) -> None:
        passed = 0
        for _ in range(_MOST_STEPS):
            if program.at >= end:
                return
            code = program.number("B")
            step = self._advance(code, program)
            if step is None:
                self._change(code, program)
                continue
            if self.first is None:
                self.first = self.base, self.offset
            passed += step * self._code
            if passed >= distance:
                return
        raise _NoRuleError

    @staticmethod
    def _advance(code: int, program: _Reader) -> int | None:
        """Return by how much an instruction advances; None: it does not."""
        if code >> 6 == 1:  # DW_CFA_advance_loc
            return code & 63
        if code in _ADVANCES:
            return program.number(_ADVANCES[code])
        return None

    def _change(self, code: int, program: _Reader) -> None:
        """Run an instruction that changes the rule."""
        kind, low = code >> 6, code & 63
        if kind == 2:  # DW_CFA_offset
            self.saved[low] = program.unsigned() * self._data
        elif kind == 3:  # DW_CFA_restore
            self._restore(low)
        elif code in _CHANGES:
            _CHANGES[code](self, program)
        else:
            raise _NoRuleError

    def offset_extended(self, program: _Reader) -> None:
        register = program.unsigned()
        self.saved[register] = program.unsigned() * self._data

    def restore_extended(self, program: _Reader) -> None:
        self._restore(program.unsigned())

    def remember_state(self, _: _Reader) -> None:
        self._kept.append((self.base, self.offset, dict(self.saved)))

    def restore_state(self, _: _Reader) -> None:
        self.base, self.offset, self.saved = self._kept.pop()

    def def_cfa(self, program: _Reader) -> None:
        self.base, self.offset = program.unsigned(), program.unsigned()

    def def_cfa_register(self, program: _Reader) -> None:
        self.base = program.unsigned()

    def def_cfa_offset(self, program: _Reader) -> None:
        self.offset = program.unsigned()

    def def_cfa_expression(self, program: _Reader) -> None:
        self.base = -1
        size = program.unsigned()
        program.at += size

    def nop(self, _: _Reader) -> None:
        """Pad the entry."""

    def args_size(self, program: _Reader) -> None:
        program.unsigned()

    def _restore(self, register: int) -> None:
        self.saved.pop(register, None)
        if register in self._initial:
            self.saved[register] = self._initial[register]


_ADVANCES = {2: "B", 3: "<H", 4: "<I"}
"""DW_CFA_advance_loc1, 2 and 4, and the form of their operand."""
_CHANGES: dict[int, Callable[[_Program, _Reader], None]] = {
    0x00: _Program.nop,
    0x05: _Program.offset_extended,
    0x06: _Program.restore_extended,
    0x0A: _Program.remember_state,
    0x0B: _Program.restore_state,
    0x0C: _Program.def_cfa,
    0x0D: _Program.def_cfa_register,
    0x0E: _Program.def_cfa_offset,
    0x0F: _Program.def_cfa_expression,
    0x2E: _Program.args_size,
}
"""By the number of DW_CFA_*; 0x2E is GNU_args_size."""
