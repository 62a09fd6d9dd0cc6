"""The rules that say what memory is for: one per allocator and runtime, in one table.

A rule looks at what the kernel shows (names, addresses, sizes, permissions), never at
the memory of the target.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from pagescan.model.memory import Mapping, Range

_KIB, _MIB = 1 << 10, 1 << 20
_ARENA = 64 * _MIB
"""HEAP_MAX_SIZE of glibc: an arena begins at a multiple of it and is no longer."""
_LOW = 32 << 30
"""Compressed references of a JVM reach this far; below is only its heap."""
_CLASS_SPACE = 1 << 30
_GRANULE = 64 * _KIB
_GO = 0xC0 << 32
"""Where the arenas of Go begin on 64-bit machines; source: runtime/malloc.go."""
_V8_CHUNK = 256 * _KIB
_ARENAS = 8 * _MIB
"""Larger memory of a Python program is more likely an array or a mapping of its own."""
_PYTHON = re.compile(r"(lib)?python3\.[1-9]\d+(\.so.*)?")
"""Up to 3.9 an arena has 256 KiB, and a build without the GIL (python3.13t) has none;
source: Include/internal/pycore_obmalloc.h."""
_NODE = frozenset({"node", "nodejs", "electron", "chrome", "chromium"})
_OTHER_MALLOC = re.compile(r"lib(jemalloc|tcmalloc|mimalloc|hoard|snmalloc)\b.*")
_LIBC = re.compile(r"libc(\.so\.6|-2\..*\.so)")


class Label(NamedTuple):
    """The purpose of a mapping.

    Attributes:
        text: In brackets, as "[java heap]".
        rule: Why it is taken for that, in a few words.
    """

    text: str
    rule: str


class Program:
    """The facts that the rules use: the mappings of one process, and its properties.

    Attributes:
        mappings: All of them, ascending.
        files: The basenames of the mapped files, and of the executable.
    """

    def __init__(self, exe: str | None, mappings: Sequence[Mapping]) -> None:
        """Look at the names of the mapped files."""
        self.mappings = mappings
        paths = {mapping.name for mapping in mappings if mapping.name.startswith("/")}
        self.exe = os.path.basename(exe or "")
        self.files = {os.path.basename(path) for path in paths} | {self.exe}

    def maps_file(self, pattern: re.Pattern[str]) -> bool:
        """Whether a file whose basename matches is mapped."""
        return any(map(pattern.fullmatch, self.files))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Per mapping: the first and the last of its run of touching anonymous ones."""
        runs: list[tuple[int, int]] = []
        for at, mapping in enumerate(self.mappings):
            if runs and self._touches(at - 1, mapping):
                continue
            last = at
            while last + 1 < len(self.mappings) and self._touches(
                last, self.mappings[last + 1]
            ):
                last += 1
            runs += [(at, last)] * (last - at + 1)
        return runs

    def _touches(self, at: int, after: Mapping) -> bool:
        before = self.mappings[at]
        return before.end == after.start and _is_plain(before) and _is_plain(after)

    def guarded(self, at: int) -> bool:
        """Whether a reservation, such as a stack's guard, ends where it begins."""
        before = self.mappings[at - 1] if at else None
        return (
            before is not None
            and before.reserved
            and before.end == self.mappings[at].start
        )


class LabelRule(NamedTuple):
    """One row of the table.

    Attributes:
        says: Why a mapping is taken for this, in a few words.
        has: Whether a program has such memory at all.
        label: The label of the mapping at an index; None: another rule may know.
    """

    says: str
    has: Callable[[Program], bool]
    label: Callable[[Program, int], str | None]


def _is_plain(mapping: Mapping) -> bool:
    return not mapping.inode and not mapping.name and not mapping.shared


def is_data(mapping: Mapping) -> bool:
    """Whether a mapping is plain writable memory."""
    return mapping.perms == "rw-p" and _is_plain(mapping)


def _named(prefix: str, text: str) -> Callable[[Program, int], str | None]:
    """Return a rule's label for names with a prefix; text has the rest of the name."""

    def label(program: Program, at: int) -> str | None:
        name = program.mappings[at].name
        if not name.startswith(prefix):
            return None
        rest = name.removeprefix(prefix).removesuffix(" (deleted)")
        return text.format(rest.strip("]").strip())

    return label


def _main_heap(program: Program, at: int) -> str | None:
    return "[malloc main arena]" if program.mappings[at].name == "[heap]" else None


def _arena(program: Program, at: int) -> str | None:
    """Label a further arena of glibc: memory, then the rest of 64 MiB reserved.

    Tracking divides memory that grows: the memory may be several mappings.
    """
    mappings = program.mappings
    base = mappings[at].start - mappings[at].start % _ARENA
    if not is_data(mappings[at]) or mappings[at].end > base + _ARENA:
        return None
    first = last = at
    while mappings[first].start > base and _goes_on(mappings, first - 1):
        first -= 1
    while mappings[last].end < base + _ARENA and _goes_on(mappings, last):
        last += 1
    if mappings[first].start != base:
        return None
    rest = mappings[last + 1 : last + 2]
    full = mappings[last].end == base + _ARENA
    begun = rest and rest[0].reserved and rest[0].start == mappings[last].end
    if full or (begun and rest[0].end == base + _ARENA):
        return "[malloc arena]"
    return None


def _goes_on(mappings: Sequence[Mapping], at: int) -> bool:
    """Whether plain writable memory touches the next mapping, which is such, too."""
    if not 0 <= at < len(mappings) - 1:
        return False
    one, other = mappings[at], mappings[at + 1]
    return one.end == other.start and is_data(one) and is_data(other)


def _java_heap(program: Program, at: int) -> str | None:
    mapping = program.mappings[at]
    low = mapping.end <= _LOW and not mapping.perms.startswith("--")
    return "[java heap]" if low and not mapping.shared else None


def _java_code(program: Program, at: int) -> str | None:
    mapping = program.mappings[at]
    return "[java code cache]" if _is_plain(mapping) and "x" in mapping.perms else None


def _class_space(program: Program, at: int) -> str | None:
    """Label what touches the end of the class data archive, up to 1 GiB."""
    mapping = program.mappings[at]
    if not is_data(mapping):
        return None
    first, _ = program.runs[at]
    before = program.mappings[first - 1] if first else None
    if before is None or not before.name.endswith(".jsa"):
        return None
    if before.end != program.mappings[first].start:
        return None
    near = mapping.end <= before.end + _CLASS_SPACE + _ARENA
    return "[java class space]" if near else None


def _metaspace(program: Program, at: int) -> str | None:
    """Label a reservation of chunks of 4 MiB, used in granules of 64 KiB."""
    mapping = program.mappings[at]
    if not is_data(mapping) or mapping.start % _GRANULE or mapping.length % _GRANULE:
        return None
    first, last = program.runs[at]
    low, high = program.mappings[first].start, program.mappings[last].end
    whole = low % (4 * _MIB) == 0 and high - low == 64 * _MIB
    return "[java metaspace]" if whole else None


def _go_heap(program: Program, at: int) -> str | None:
    mapping = program.mappings[at]
    inside = _GO <= mapping.start < _GO + (1 << 40)
    return "[go heap]" if inside and is_data(mapping) else None


def _v8_heap(program: Program, at: int) -> str | None:
    mapping = program.mappings[at]
    placed = 1 << 32 <= mapping.start < 0x5000 << 32
    return (
        "[v8 heap]"
        if placed and is_data(mapping) and mapping.start % _V8_CHUNK == 0
        else None
    )


def _v8_code(program: Program, at: int) -> str | None:
    mapping = program.mappings[at]
    return "[v8 code]" if _is_plain(mapping) and "x" in mapping.perms else None


def _python_arenas(program: Program, at: int) -> str | None:
    """Label what may be whole arenas; a stack has a guard page before it.

    Memory of that size which the program has mapped itself looks the same: the label
    has a question mark.
    """
    mapping = program.mappings[at]
    if not is_data(mapping) or mapping.length % _MIB or mapping.length > _ARENAS:
        return None
    return None if program.guarded(at) else "[python objects?]"


def _shared_buffers(program: Program, at: int) -> str | None:
    mapping = program.mappings[at]
    names = ("/dev/zero (deleted)", "/anon_hugepage (deleted)")
    return "[postgres shared buffers]" if mapping.name in names else None


def _has_glibc(program: Program) -> bool:
    return program.maps_file(_LIBC) and not program.maps_file(_OTHER_MALLOC)


def _is_java(program: Program) -> bool:
    return "libjvm.so" in program.files


def _is_v8(program: Program) -> bool:
    return bool(_NODE & program.files) or any(
        name.startswith("libnode.so") for name in program.files
    )


def _is_python(program: Program) -> bool:
    return program.maps_file(_PYTHON)


def _is_postgres(program: Program) -> bool:
    return program.exe in ("postgres", "postmaster")


def _is_go(program: Program) -> bool:
    return any(mapping.start == _GO for mapping in program.mappings)


def _any(_program: Program) -> bool:
    return True


RULES = (
    LabelRule("named by the program, prctl(2)", _any, _named("[anon:", "[{}]")),
    LabelRule("named by the program, prctl(2)", _any, _named("[anon_shmem:", "[{}]")),
    LabelRule(
        "the name of a memfd", _is_java, _named("/memfd:java_heap", "[java heap]")
    ),
    LabelRule("the name of a memfd", _any, _named("/memfd:", "[memfd {}]")),
    LabelRule("System V shared memory", _any, _named("/SYSV", "[System V, key {}]")),
    LabelRule(
        "shared memory of postgres; its buffers are most of it",
        _is_postgres,
        _shared_buffers,
    ),
    LabelRule(
        "shared memory of postgres",
        _is_postgres,
        _named("/dev/shm/PostgreSQL.", "[postgres dynamic shared memory]"),  # noqa: S108
    ),
    LabelRule("JVM: memory below 32 GiB", _is_java, _java_heap),
    LabelRule("JVM: executable, without a file", _is_java, _java_code),
    LabelRule("glibc: at a multiple of 64 MiB, the rest reserved", _has_glibc, _arena),
    LabelRule("JVM: touches the class data archive", _is_java, _class_space),
    LabelRule("JVM: 64 MiB reserved, used in granules of 64 KiB", _is_java, _metaspace),
    LabelRule("V8: placed at random, at a multiple of 256 KiB", _is_v8, _v8_heap),
    LabelRule("V8: executable, without a file", _is_v8, _v8_code),
    LabelRule(
        "Go: its arenas, with the goroutines' stacks, begin at 0xc000000000",
        _is_go,
        _go_heap,
    ),
    LabelRule(
        "CPython: 1 to 8 MiB, as its arenas of 1 MiB are; other memory of such a size"
        " looks the same",
        _is_python,
        _python_arenas,
    ),
    LabelRule("glibc: the heap of brk(2)", _has_glibc, _main_heap),
)
"""The first row that knows a mapping labels it."""


def labels_by(rules: Sequence[LabelRule], program: Program, at: int) -> Iterator[Label]:
    """Yield the labels that rules give to the mapping at an index, in their order."""
    for rule in rules:
        text = rule.label(program, at)
        if text:
            yield Label(text, rule.says)


TOLD_RULE = "the Java virtual machine itself says so (jcmd VM.info)"


class Told(NamedTuple):
    """A range of memory, and what the target says that it is for."""

    range: Range
    text: str


def text_of(told: list[Told], mapping: Mapping) -> str | None:
    """Return what a mapping is for of which one of the ranges has nine tenths.

    The kernel may join the memory of a range with a neighbour to one mapping.
    """
    for item in told:
        low = max(item.range.start, mapping.start)
        high = min(item.range.end, mapping.end)
        if high - low >= 0.9 * mapping.length:
            return item.text
    return None
