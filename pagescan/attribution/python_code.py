"""Reads code objects of CPython in the memory of another process.

A word is believed to point into a code object only if everything around it fits: the
types of the object, of its names and of its tables, and the length of its bytecode.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right, insort
from typing import NamedTuple

_TYPE = 8
"""Where an object has the address of its type."""
_MOST_UNITS = 1 << 20
_PAGE = 4096
_MOST_PAGES = 16
"""How much bytecode a code object may have before the instruction: 64 KiB."""
_LONGEST = 1024
_LARGEST_LINE = 10_000_000
_LOWEST, _HIGHEST = 1 << 16, 1 << 47
_KEPT_MISSES = 1 << 16


class Layout(NamedTuple):
    """Where a version of CPython keeps what; source: Include/cpython/code.h."""

    first_line: int
    bytecode: int
    ascii: int
    """Where a string of ASCII characters begins in its object."""
    other: int
    """Where another string begins."""


LAYOUTS = {
    (3, 11): Layout(72, 184, 48, 72),
    (3, 12): Layout(68, 192, 40, 56),
    (3, 13): Layout(68, 200, 40, 56),
}
_FILENAME, _QUALNAME, _LINETABLE = 112, 128, 136
_STRING_STATE = 32
_KINDS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


class Types(NamedTuple):
    """Addresses of the types that are checked."""

    code: int
    string: int
    bytes: int


class PythonFunction(NamedTuple):
    """A function of a Python program."""

    name: str
    """With its class or outer function, as in Shop.buy."""
    file: str
    line: int | None
    """Where it begins."""
    exact: bool = False
    """It was named by the interpreter itself; False: found on the stack."""


class CodeObject(NamedTuple):
    """A code object as it was when it was read."""

    start: int
    """The first byte of its bytecode."""
    end: int
    address: int
    head: bytes
    """Its fields up to the bytecode that do not change as long as it exists."""
    function: PythonFunction

    @property
    def is_internal(self) -> bool:
        """Whether it is no function, but CPython's own, as <interpreter trampoline>."""
        return self.function.name.startswith("<interpreter")


class CodeObjects:
    """The code objects of one process, as far as they were asked for."""

    def __init__(self, memory: int, layout: Layout, types: Types) -> None:
        """Take a descriptor of /proc/PID/mem, which stays the caller's."""
        self._memory, self._layout, self._types = memory, layout, types
        self._starts: list[int] = []
        self._known: dict[int, CodeObject] = {}
        self._misses: set[int] = set()
        self._fresh: set[int] = set()

    def begin(self) -> None:
        """Check known objects again, when they are next asked for."""
        self._fresh.clear()

    def forget_misses(self) -> None:
        """Look again at the addresses that held no code object."""
        self._misses.clear()

    def known_at(self, instruction: int) -> CodeObject | None:
        """Return the code object with an instruction, if it was found before."""
        last = bisect_right(self._starts, instruction) - 1
        if last < 0:
            return None
        code = self._known[self._starts[last]]
        if instruction % 2 or instruction > code.end:
            return None
        if self._is_there(code):
            return code
        del self._starts[last], self._known[code.start]
        return None

    def search(self, instruction: int) -> CodeObject | None:
        """Look for the code object with an instruction; None: no valid one."""
        if instruction % 2 or not _LOWEST < instruction < _HIGHEST:
            return None
        if instruction in self._misses:
            return None
        found = self._search(instruction)
        if found is None:
            if len(self._misses) >= _KEPT_MISSES:
                self._misses.clear()
            self._misses.add(instruction)
        elif found.start not in self._known:
            insort(self._starts, found.start)
            self._known[found.start] = found
            self._fresh.add(found.start)
        return found

    def _is_there(self, code: CodeObject) -> bool:
        if code.start in self._fresh:
            return True
        if self._head(self._read(code.address, self._layout.bytecode)) != code.head:
            return False
        self._fresh.add(code.start)
        return True

    def _search(self, instruction: int) -> CodeObject | None:
        """Look for the type of code objects before an instruction."""
        wanted = struct.pack("<Q", self._types.code)
        block, page = b"", instruction & -_PAGE
        end = instruction
        for _ in range(_MOST_PAGES):
            piece = self._read(page, end - page)
            if not piece:
                return None
            block = piece + block[:8]
            at = len(block)
            while (at := block.rfind(wanted, 0, at)) >= 0:
                address = page + at - _TYPE
                if address % 8 == 0:
                    found = self._object(address)
                    fits = found and found.start <= instruction <= found.end
                    return found if fits else None
            page, end = page - _PAGE, page
        return None

    def _object(self, address: int) -> CodeObject | None:
        layout = self._layout
        raw = self._read(address, layout.bytecode)
        if len(raw) < layout.bytecode:
            return None
        (kind, units) = struct.unpack_from("<Qq", raw, _TYPE)
        (line,) = struct.unpack_from("<i", raw, layout.first_line)
        file, _, name, table = struct.unpack_from("<QQQQ", raw, _FILENAME)
        if kind != self._types.code or not 0 < units < _MOST_UNITS:
            return None
        if not 0 <= line < _LARGEST_LINE or self._type_of(table) != self._types.bytes:
            return None
        name_text, file_text = self._string(name), self._string(file)
        if not name_text or not file_text:
            return None
        start = address + layout.bytecode
        return CodeObject(
            start,
            start + 2 * units,
            address,
            self._head(raw),
            PythonFunction(name_text, file_text, line),
        )

    def _head(self, raw: bytes) -> bytes:
        """Return what does not change: type, length, the constants' tuples, names."""
        return raw[_TYPE:48] + raw[_FILENAME : _LINETABLE + 8]

    def _type_of(self, address: int) -> int:
        raw = self._read(address + _TYPE, 8)
        return int.from_bytes(raw, "little") if len(raw) == 8 else 0

    def _string(self, address: int) -> str | None:
        """Return a string object of the target; None: no string, or not printable."""
        raw = self._read(address, self._layout.ascii)
        if len(raw) < self._layout.ascii:
            return None
        kind, length = struct.unpack_from("<Qq", raw, _TYPE)
        (state,) = struct.unpack_from("<I", raw, _STRING_STATE)
        width, compact, is_ascii = state >> 2 & 7, state >> 5 & 1, state >> 6 & 1
        valid = kind == self._types.string and compact and width in _KINDS
        if not valid or not 0 < length <= _LONGEST:
            return None
        at = address + (self._layout.ascii if is_ascii else self._layout.other)
        data = self._read(at, width * length)
        if len(data) < width * length:
            return None
        text = data.decode(_KINDS[width], errors="replace")
        return text if text.isprintable() else None

    def _read(self, address: int, size: int) -> bytes:
        try:
            return os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            return b""
