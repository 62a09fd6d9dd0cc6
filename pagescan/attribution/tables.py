"""Chooses the best table of function names for a file, and caches it.

In this order: .symtab of a separate debug file; the file's own .symtab; .symtab in
.gnu_debugdata, or the table of Go's runtime, together with .dynsym; a debug file of a
debuginfod server; .dynsym.
The cache is keyed by what the kernel says of a file, and by the build id only for
debug files: no process may choose the names of another one's code.
"""

import io
import os
from functools import lru_cache
from typing import NamedTuple

from pagescan.attribution import debug_files
from pagescan.attribution.code_files import CodeFiles
from pagescan.attribution.elf import BadElfError, Elf, Functions, Symbol, open_elf

_LARGEST_DEBUGDATA = 128 << 20
_TABLES = 64
CACHED_FUNCTIONS = 3_000_000
_FEWEST = 1
"""With this many functions a table is used, and no further source is read."""


class Table(NamedTuple):
    """The functions of one file, and how offsets in it become addresses."""

    elf: Elf
    functions: Functions
    source: str
    """Where the names come from, as in ".symtab"."""
    debug: int = -1
    """A descriptor of the file that has line numbers; -1: it was not looked for."""


class _Key(NamedTuple):
    device: int
    inode: int
    size: int
    changed: int
    build_id: str


cache: dict[_Key, Table] = {}


def table_of(fd: int, path: bytes, files: CodeFiles) -> Table | None:
    """Return the function names of an open file; None: it is no ELF file.

    Args:
        fd: The file; it stays the caller's.
        path: Its path, as the target sees it.
        files: The target's files, for separate debug files.
    """
    facts = os.fstat(fd)
    try:
        elf = open_elf(fd)
    except BadElfError:
        return None
    key = _Key(
        facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, elf.build_id
    )
    table = cache.pop(key, None)
    if table is None:
        table = Table(elf, *_functions(elf, path, files))
    cache[key] = table  # the latest last
    while len(cache) > _TABLES or (len(cache) > 1 and _cached() > CACHED_FUNCTIONS):
        del cache[next(iter(cache))]
    return table


def _cached() -> int:
    """Return how many functions the cache has."""
    return sum(len(table.functions) for table in cache.values())


def _functions(elf: Elf, path: bytes, files: CodeFiles) -> tuple[Functions, str]:
    """Return the best table and its source."""
    fd = debug_files.find(elf, path, files)
    symbols = _of_debug_file(fd, elf.left_out)
    if len(symbols) >= _FEWEST:
        return Functions(symbols), "debug file"
    own = elf.symbols(".symtab")
    if len(own) >= _FEWEST:
        return Functions(own), ".symtab"
    exported = elf.symbols(".dynsym")
    packed = _of_debugdata(elf)
    if packed:
        return Functions([*packed, *exported]), ".gnu_debugdata"
    from pagescan.attribution import go_table  # most files need none of it

    if of_go := go_table.functions_of(elf):
        return Functions([*of_go, *exported]), ".gopclntab"
    symbols = _of_debug_file(debug_files.fetch(elf.build_id), elf.left_out)
    if symbols:
        return Functions(symbols), "debuginfod"
    return Functions(exported), ".dynsym"


def _of_debug_file(fd: int, left_out: set[str]) -> list[Symbol]:
    """Return the functions of a debug file, which is closed.

    Args:
        fd: The file, or -1.
        left_out: A table that is too large is added.
    """
    if fd < 0:
        return []
    try:
        elf = open_elf(fd)
        symbols = elf.symbols(".symtab")
    except BadElfError:
        return []
    finally:
        os.close(fd)
    left_out |= elf.left_out
    return symbols


def _of_debugdata(elf: Elf) -> list[Symbol]:
    """Return the functions in .gnu_debugdata: a small ELF file, compressed with xz."""
    packed = elf.data(".gnu_debugdata", _LARGEST_DEBUGDATA)
    if not packed:
        return []
    import lzma

    try:
        unpacker = lzma.LZMADecompressor(memlimit=_LARGEST_DEBUGDATA)
        data = unpacker.decompress(packed, _LARGEST_DEBUGDATA)
        return Elf(io.BytesIO(data)).symbols(".symtab")
    except (lzma.LZMAError, EOFError, BadElfError):
        return []


@lru_cache(maxsize=1)
def vdso() -> Table | None:
    """Return the names of the vdso: this process has the same one as every other."""
    try:
        with open("/proc/self/maps") as maps:
            span = next(line.split()[0] for line in maps if "[vdso]" in line)
        start, end = (int(number, 16) for number in span.split("-"))
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            elf = Elf(io.BytesIO(memory.read(end - start)))
    except (StopIteration, OSError, BadElfError):
        return None
    return Table(elf, Functions(elf.symbols(".dynsym")), ".dynsym")
