"""Reads the functions of a stripped Go program, from the table of its own runtime.

The runtime needs that table for its tracebacks, so that strip(1) and `-ldflags=-s`
leave it. Its layout is that of Go 1.16 and later, on 64-bit machines. Source: the
structures pcHeader and _func of Go's runtime (symtab.go, runtime2.go).
"""

import contextlib
import re
import struct
from array import array
from collections.abc import Iterator
from itertools import islice

from pagescan.attribution.elf import LARGEST_TABLE, Elf, Symbol

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_JOINED = ".data.rel.ro"  # of the C linker, in a position-independent program
_BEGIN = re.compile(rb"[\xf0\xf1\xfa]\xff\xff\xff\0\0[\x01\x04]\x08")
_MAGIC_OF_OFFSETS = (0xFFFFFFF0, 0xFFFFFFF1)  # Go 1.18 and later: offsets from the code
_NUMBERS = struct.Struct("<Q")
_TEXT_START = 24  # offset of pcHeader.textStart
_LOCAL = 0  # STB_LOCAL
_MOST, _MOST_TRIES = 2_000_000, 8


def functions_of(elf: Elf) -> list[Symbol]:
    """Return the functions in the table; []: it is missing or damaged."""
    for address, data in _tables(elf):
        with contextlib.suppress(struct.error, IndexError, ValueError, OverflowError):
            if symbols := _read(elf, address, data):
                return symbols
    return []


def _tables(elf: Elf) -> Iterator[tuple[int, bytes]]:
    """Yield what may be the table: its address, and all from its first byte on."""
    for name in (*_SECTIONS, _JOINED):
        section = elf.sections.get(name)
        if section is None:
            continue
        data, address = elf.data(name, LARGEST_TABLE), elf.address(section.offset)
        for found in islice(_BEGIN.finditer(data), _MOST_TRIES):
            yield address + found.start(), data[found.start() :]
            if name != _JOINED:
                break


def _read(elf: Elf, address: int, data: bytes) -> list[Symbol]:
    (magic,) = struct.unpack_from("<I", data)
    if magic in _MAGIC_OF_OFFSETS:
        count, _, text, names, _, _, _, table = struct.unpack_from("<8Q", data, 8)
        text = text or _relocated(elf, address + _TEXT_START) or _code(elf)
        code, name_at, kind = text, 4, "I"
    else:  # of Go 1.16 and 1.17: addresses
        count, _, names, _, _, _, table = struct.unpack_from("<7Q", data, 8)
        code, name_at, kind = 0, 8, "Q"
    if count > _MOST:
        return []
    size = array(kind).itemsize
    # Pairs: where a function begins, and where its facts are; at last, where all end.
    pairs = array(kind, data[table : table + (2 * count + 1) * size])
    begins, facts = pairs[::2], pairs[1::2]
    if len(facts) != count:
        return []
    name_of = struct.Struct("<i").unpack_from
    symbols: list[Symbol] = []
    for at, fact in enumerate(facts):
        (name,) = name_of(data, table + fact + name_at)
        start = begins[at]
        if name > 0 and names + name < len(data):
            length = max(begins[at + 1] - start, 0)
            symbols.append((code + start, length, _LOCAL, names + name, data))
    return symbols


def _relocated(elf: Elf, address: int) -> int:
    """Return what the loader writes to an address, less the base; 0: nothing.

    In a position-independent program the file has 0 there. Source: elf(5), Elf64_Rela.
    """
    table = elf.data(".rela.dyn", LARGEST_TABLE)
    wanted = _NUMBERS.pack(address)
    at = table.find(wanted)
    while at >= 0 and at % 24:
        at = table.find(wanted, at + 1)
    return _NUMBERS.unpack_from(table, at + 16)[0] if at >= 0 else 0


def _code(elf: Elf) -> int:
    """Return the address of the program's code."""
    section = elf.sections.get(".text")
    return elf.address(section.offset) if section else 0
