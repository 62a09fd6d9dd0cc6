"""Names addresses of code: function, module and, with `pagescan[lines]`, the line."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Self

from pagescan.attribution import debug_files, jit_maps, kernel_names, tables
from pagescan.attribution.code_files import CodeFiles
from pagescan.attribution.demangle import available, demangle
from pagescan.attribution.elf import LARGEST_TABLE
from pagescan.attribution.source_lines import Place, SourceLines, load
from pagescan.model.errors import PagescanError
from pagescan.model.units import format_size
from pagescan.target.maps import Reader
from pagescan.target.process import Target

if TYPE_CHECKING:
    from pagescan.model.memory import Mapping

_OPEN_FILES = 256
_PAST_MAPPINGS = 4096
JIT = "[jit]"


class Name(NamedTuple):
    """The name of one address of code."""

    function: str | None
    """The name in the source; None: the address has no name."""
    module: str | None
    """The file as maps prints it, "[jit]", "[vdso]", "[kernel]", the kernel's module or
    the mapping's label; None: nothing was mapped there."""
    offset: int
    """Bytes from the start of the function; without a function from that of the file or
    mapping; without both the address itself."""
    file: str | None = None
    """The source file; None: not known, or not asked for."""
    line: int | None = None
    inlined: tuple[str, ...] = ()
    """Functions that were inlined at this address, the innermost first."""
    python: str | None = None
    """For a function of Python "exact" or "likely"."""


class _Raw(NamedTuple):
    """A name before it is demangled."""

    function: bytes | None
    module: str | None
    offset: int
    file: str | None = None
    line: int | None = None
    inlined: tuple[str, ...] = ()


_FileKey = tuple[tuple[int, int], int]


class Symbols:
    """Names the code of one process. A context manager.

    A mapped file is opened when it is first seen, and read when an address in it is
    to be named. So code can still be named after the process has ended.

    Attributes:
        notes: What the user should know, such as that the kernel hides its names.
    """

    def __init__(
        self, pid: int, *, lines: bool = False, ask_runtime: bool = False
    ) -> None:
        """Open the process's files.

        Args:
            pid: The process.
            lines: Find source lines too, which needs `pagescan[lines]`.
            ask_runtime: Let a Java machine write the names of its compiled methods to
                /tmp/perf-PID.map, by jcmd.

        Raises:
            PagescanError: It cannot be looked at; `lines` without the extra.
        """
        if lines:
            load()
        self.notes: list[str] = []
        self._lines: dict[_FileKey, SourceLines] | None = {} if lines else None
        self._target = Target.open(pid)
        self._mappings: list[Mapping] = []
        self._starts = array("Q")
        self._past: list[Mapping] = []
        self._fds: dict[_FileKey, int] = {}
        self._tables: dict[_FileKey, tables.Table | None] = {}
        self._names: dict[int, Name] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self._target.close)
            self._files = CodeFiles(pid)
            undo.callback(self.close)
            self._reader = Reader(self._target)
            self._jit = jit_maps.JitMap(self._files)
            self._unasked = ""  # the note that says why the runtime did not answer
            self._has_answered = False
            if ask_runtime:
                self.ask_runtime()
            self.refresh()
            undo.pop_all()

    def refresh(self) -> None:
        """Read the mappings again; the caller does this at each tick.

        Code that is unmapped later keeps its names.
        """
        if not self._target.exited():
            mappings = [m for m in self._reader.read() if "x" in m.perms]
            if mappings != self._mappings:
                self._take(mappings)
        if self._jit.refresh():
            self._forget(JIT)

    def ask_runtime(self) -> bool:
        """Let a Java machine tell its compiled methods; return whether it did.

        A note says why, as long as it never did.
        """
        if self._unasked:
            self.notes.remove(self._unasked)
            self._unasked = ""
        if why := self._jit.ask_java():
            if not self._has_answered:
                self._unasked = f"methods of Java stay without a name: {why}"
                self.notes.append(self._unasked)
            return False
        self._has_answered = True
        self._forget(JIT)
        return True

    def _take(self, mappings: list[Mapping]) -> None:
        gone = set(self._mappings).difference(mappings)
        self._past = [*self._past, *gone][-_PAST_MAPPINGS:]
        self._mappings = mappings
        self._starts = array("Q", [mapping.start for mapping in mappings])
        self._names.clear()
        for mapping in mappings:
            if mapping.inode and len(self._fds) < _OPEN_FILES:
                self._open(mapping)

    def _forget(self, module: str) -> None:
        """Drop the names of one module, and the addresses that had no name."""
        self._names = {
            address: name
            for address, name in self._names.items()
            if name.module != module and name.function
        }

    def name(self, addresses: array[int]) -> list[Name]:
        """Return one name per address.

        Args:
            addresses: An array('Q'), in any order; repeated ones cost next to nothing.
        """
        known = self._names
        new = set(addresses).difference(known)
        if new:
            if any(self._mapping(address) is None for address in new):
                with contextlib.suppress(PagescanError):  # it has ended
                    self.refresh()
                known = self._names
            known.update(self._name_all(new.union(addresses).difference(known)))
        return [known[address] for address in addresses]

    def _name_all(self, addresses: Iterable[int]) -> dict[int, Name]:
        raw = {address: self._find(address) for address in addresses}
        names = demangle(r.function for r in raw.values() if r.function is not None)
        if any(text.startswith(("_Z", "_R")) for text in names.values()):
            self._note_once(
                not available(), "names of C++ and Rust need c++filt (binutils)"
            )
        return {address: _readable(found, names) for address, found in raw.items()}

    def _note_once(self, wanted: bool, text: str) -> None:
        if wanted and text not in self.notes:
            self.notes.append(text)

    def _find(self, address: int) -> _Raw:
        if address >= kernel_names.LOWEST:
            return self._of_kernel(address)
        mapping = self._mapping(address)
        if mapping is None:
            return _Raw(None, None, address)
        if mapping.name == "[vdso]":
            return _of_vdso(mapping, address)
        table = self._table(mapping) if mapping.inode else None
        if table is not None:
            return self._of_file(mapping, table, address)
        found = self._jit.at(address)  # its code may lie in a memfd, too
        if found:
            return _Raw(found[0], JIT, address - found[1])
        return _Raw(None, mapping.label, address - mapping.start + mapping.offset)

    def _of_kernel(self, address: int) -> _Raw:
        table = kernel_names.kernel_table()
        self._note_once(
            not table.starts,
            "the kernel hides its names from this user (kptr_restrict)",
        )
        name, module, offset = table.at(address)
        return _Raw(name.encode() if name else None, module, offset)

    def _mapping(self, address: int) -> Mapping | None:
        """Return the mapping of code around an address: a present one, or the last."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address < self._mappings[at].end:
            return self._mappings[at]
        for mapping in reversed(self._past):
            if mapping.start <= address < mapping.end:
                return mapping
        return None

    def _of_file(self, mapping: Mapping, table: tables.Table, address: int) -> _Raw:
        offset = address - mapping.start + mapping.offset
        at = table.elf.address(offset)
        found = table.functions.at(at)
        name, start = found or (None, 0)
        place = self._place(mapping, table, at) or Place(None, None, ())
        return _Raw(name, mapping.label, at - start if found else offset, *place)

    def _table(self, mapping: Mapping) -> tables.Table | None:
        key = (mapping.device, mapping.inode)
        if key not in self._tables:
            fd = self._open(mapping)
            path = os.fsencode(mapping.name)
            table = tables.table_of(fd, path, self._files) if fd >= 0 else None
            self._tables[key] = table
            if self._lines is None and fd >= 0:
                os.close(self._fds.pop(key))
            if table is not None:
                self._note_source(mapping, table)
        return self._tables[key]

    def _note_source(self, mapping: Mapping, table: tables.Table) -> None:
        if table.source == "debuginfod":
            self._note_once(True, f"names of {mapping.name} came from debuginfod")
        most = format_size(LARGEST_TABLE)
        for name in sorted(table.elf.left_out):
            self._note_once(
                True, f"{name} of {mapping.name} was not read: it has more than {most}"
            )
        for server, why in debug_files.silent.items():
            self._note_once(True, f"debuginfod at {server} is not asked again: {why}")

    def _open(self, mapping: Mapping) -> int:
        """Return the descriptor of a mapped file; -1: it cannot be opened."""
        key = (mapping.device, mapping.inode)
        if key not in self._fds and key not in self._tables:
            fd = self._files.open_mapped(mapping)
            if fd < 0:
                return -1
            self._fds[key] = fd
        return self._fds.get(key, -1)

    def _place(
        self, mapping: Mapping, table: tables.Table, address: int
    ) -> Place | None:
        if self._lines is None:
            return None
        key = (mapping.device, mapping.inode)
        if key not in self._lines:
            path = os.fsencode(mapping.name)
            debug = debug_files.find(table.elf, path, self._files)
            base = min((segment[2] for segment in table.elf.segments), default=0)
            fd = debug if debug >= 0 else self._fds.get(key, -1)
            self._lines[key] = SourceLines(fd, base)
            if debug >= 0:
                os.close(debug)
        return self._lines[key].at(address)

    def forget(self) -> None:
        """Close the descriptors and drop all tables: nothing can be named any more."""
        self.close()
        self._tables.clear()
        self._names.clear()
        self._mappings, self._past, self._starts = [], [], array("Q")

    def close(self) -> None:
        """Close the descriptors; a second call has no effect."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._files.close()
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _readable(found: _Raw, names: dict[bytes, str]) -> Name:
    """Return the name with the function as the source spells it."""
    if found.function is None:
        return Name(None, *found[1:])
    text = names[found.function]
    if found.module != JIT:
        return Name(text, *found[1:])
    function, file, line = jit_maps.source_of(text)
    return Name(function, found.module, found.offset, file, line)


def _of_vdso(mapping: Mapping, address: int) -> _Raw:
    offset = address - mapping.start
    table = tables.vdso()
    found = table.functions.at(table.elf.address(offset)) if table else None
    if table is None or found is None:
        return _Raw(None, mapping.label, offset)
    return _Raw(found[0], mapping.label, table.elf.address(offset) - found[1])
