"""Reads parts of ELF files: segments, sections, the build id, names of functions.

The target chooses the file, so nothing in it is trusted. pyelftools reads its headers,
through a stream that ends after a number of bytes and calls; the tables are read in
bulk, up to a size.
"""

import contextlib
import io
import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import IO, BinaryIO, NamedTuple, cast

_HEADER_BYTES, _HEADER_CALLS = 32 << 20, 400_000
LARGEST_TABLE = 64 << 20
"""Bytes of a table of symbols, 2.8 million of them: measured, 450 MB of memory."""
_LARGEST_STRINGS = 256 << 20
_SYMBOL = struct.Struct("<IBBHQQ")
_FUNCTIONS = frozenset({2, 10})  # STT_FUNC, STT_GNU_IFUNC; source: elf(5)
_EXPORTED = frozenset({1, 2})  # STT_OBJECT, STT_FUNC
_LONGEST_NAME = 64 << 10
_WALK_BACK = 16
"""The most symbols between an address and the symbol whose function contains it."""


class BadElfError(Exception):
    """The file is no ELF file that can be read."""


class Section(NamedTuple):
    """Where a section lies in its file, and the index of the one it refers to."""

    offset: int
    size: int
    link: int


class _Bounded:
    """A file that raises after a number of bytes or calls."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes, self._calls = _HEADER_BYTES, _HEADER_CALLS

    def read(self, size: int = -1) -> bytes:
        self._calls -= 1
        if size < 0 or size > self._bytes or not self._calls:
            raise BadElfError
        piece = self._file.read(size)
        self._bytes -= len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class Elf:
    """The headers of an ELF file.

    Attributes:
        segments: (file offset, size in the file, address) of each loaded segment.
        sections: By name; the first of a name.
        build_id: As hex digits, or "".
        left_out: The tables that were too large to be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the headers.

        Args:
            file: A raw file or a BytesIO; it stays the caller's.

        Raises:
            BadElfError: It is no 64-bit little-endian ELF file, or it is damaged.
        """
        self._file = file
        self.segments: list[tuple[int, int, int]] = []
        self.sections: dict[str, Section] = {}
        self._by_index: list[Section] = []
        self.build_id = ""
        self.left_out: set[str] = set()
        try:
            self._read_headers()
        except Exception as error:  # a damaged file can raise any error in the parser
            raise BadElfError(str(error)) from error

    def _read_headers(self) -> None:
        from elftools.elf.elffile import ELFFile

        elf = ELFFile(cast("IO[bytes]", _Bounded(self._file)))
        if elf.elfclass != 64 or not elf.little_endian:
            raise BadElfError
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                place = (segment["p_offset"], segment["p_filesz"], segment["p_vaddr"])
                self.segments.append(place)
        for number in range(elf.num_sections()):
            section = elf.get_section(number)
            empty = section["sh_type"] == "SHT_NOBITS"  # in a separate debug file
            size = 0 if empty else section["sh_size"]
            place = Section(section["sh_offset"], size, section["sh_link"])
            self._by_index.append(place)
            self.sections.setdefault(section.name, place)
        self.build_id = _build_id(self.data(".note.gnu.build-id", 4096))

    def data(self, name: str, most: int) -> bytes:
        """Return the bytes of a section; b"": it is missing or too large."""
        section = self.sections.get(name)
        return self._bytes_of(section, most) if section else b""

    def _bytes_of(self, section: Section, most: int) -> bytes:
        if section.size > most:
            return b""
        with contextlib.suppress(OSError, ValueError, OverflowError):
            self._file.seek(section.offset)
            return self._file.read(section.size) or b""
        return b""

    def address(self, offset: int) -> int:
        """Return the address of the byte at an offset of the file."""
        for start, size, address in self.segments:
            if start <= offset < start + size:
                return offset - start + address
        return offset

    def find(self, names: set[bytes]) -> dict[bytes, tuple[int, int]]:
        """Return address and size of functions and data by their exported names."""
        found: dict[bytes, tuple[int, int]] = {}
        for value, size, _, at, strings in self._read_symbols(".dynsym", _EXPORTED):
            end = strings.find(b"\0", at, at + _LONGEST_NAME)
            if strings[at:end] in names:
                found[strings[at:end]] = value, size
        return found

    def symbols(self, name: str) -> list["Symbol"]:
        """Return the functions of .symtab or .dynsym, in the order of the file."""
        return self._read_symbols(name, _FUNCTIONS)

    def _read_symbols(self, name: str, kinds: frozenset[int]) -> list["Symbol"]:
        section = self.sections.get(name)
        if section is None or not 0 < section.link < len(self._by_index):
            return []
        names = self._by_index[section.link]
        if section.size > LARGEST_TABLE or names.size > _LARGEST_STRINGS:
            self.left_out.add(name)
            return []
        table = self._bytes_of(section, LARGEST_TABLE)
        strings = self._bytes_of(names, _LARGEST_STRINGS)
        table = table[: len(table) // _SYMBOL.size * _SYMBOL.size]
        return [
            (value, size, info >> 4, at, strings)
            for at, info, _, index, value, size in _SYMBOL.iter_unpack(table)
            if info & 15 in kinds and index and value
        ]


Symbol = tuple[int, int, int, int, bytes]
"""Address, size, binding, where its name begins, the strings that hold the name."""


class Functions:
    """A table of functions, by address."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        """Sort the symbols; of several at one address keep the most public name."""
        ordered = sorted(symbols, key=lambda symbol: symbol[0])
        self._starts = array("Q", [symbol[0] for symbol in ordered])
        self._symbols = ordered

    def __len__(self) -> int:
        return len(self._symbols)

    def at(self, address: int) -> tuple[bytes, int] | None:
        """Return name and start of the function around an address; None: no function.

        A symbol without a size, as of hand-written code, reaches to the next symbol.
        """
        last = bisect_right(self._starts, address) - 1
        for at in range(last, max(last - _WALK_BACK, -1), -1):
            start, size = self._symbols[at][:2]
            nearest = start == self._starts[last]
            if address < start + size or (nearest and not size):
                same = [
                    symbol
                    for symbol in self._neighbours(at)
                    if address < start + symbol[1] or not symbol[1]
                ]
                return _name(max(same, key=_preference)), start
        return None

    def _neighbours(self, at: int) -> list[Symbol]:
        """Return the symbols with the address of one, which is the last of them."""
        first = at
        start = self._starts[at]
        while first > max(at - 256, 0) and self._starts[first - 1] == start:
            first -= 1
        return self._symbols[first : at + 1]


def _preference(symbol: Symbol) -> tuple[bool, int, int, int]:
    """Order the names of one function: sized, without underscores, global, short."""
    name = _name(symbol)
    bare = name.lstrip(b"_")
    rank = {1: 2, 2: 1}.get(symbol[2], 0)  # STB_GLOBAL, STB_WEAK, others
    return (symbol[1] > 0, len(bare) - len(name), rank, -len(name))


def _name(symbol: Symbol) -> bytes:
    at, strings = symbol[3:]
    end = strings.find(b"\0", at, at + _LONGEST_NAME)
    return strings[at : end if end >= 0 else at + _LONGEST_NAME]


def _build_id(note: bytes) -> str:
    """Return the build id in a section of notes, as hex digits; source: elf(5)."""
    at = 0
    while at + 12 <= len(note):
        name_size, size, kind = struct.unpack_from("<III", note, at)
        start = at + 12 + (name_size + 3 & ~3)
        if kind == 3 and note[at + 12 : at + 16] == b"GNU\0":  # NT_GNU_BUILD_ID
            return note[start : start + size].hex() if 2 <= size <= 64 else ""
        at = start + (size + 3 & ~3)
    return ""


def open_elf(fd: int) -> Elf:
    """Read the headers of an open file; the descriptor stays the caller's."""
    return Elf(io.FileIO(fd, closefd=False))
