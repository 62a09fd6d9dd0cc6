"""Reads a process's mappings from /proc/PID/maps, in large reads, parsed in C."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from pagescan import native
from pagescan.model.errors import PagescanError, from_oserror
from pagescan.model.memory import PAGE_SIZE, Mapping
from pagescan.target.living import memory_dir
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.smaps import smaps_field

_MANY = 2000
"""From this number on, mappings are kept: it takes some ms to make them again."""
_NO_DEVICE = (0, 0)
_LETTERS = tuple(
    "".join(
        letter if flags & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x"))
    )
    + ("s" if flags & 8 else "p")
    for flags in range(16)
)


def open_maps(pid: int) -> int:
    """Return the open /proc/PID/maps; OSError if it cannot be opened."""
    return os.open(f"{memory_dir(pid)}/maps", os.O_RDONLY | os.O_CLOEXEC)


class Reader:
    """Reads a target's mappings repeatedly; unchanged ones are the same objects again.

    Making every object again would take 0.2 s per look for 100,000 mappings.
    """

    def __init__(self, target: Target) -> None:
        """Remember the target; the first call of `read` reads its mappings."""
        self.target = target
        self._text = b""
        self._found: list[Mapping] = []
        self._disjoint = True
        self._digest: int | None = None  # of a text that is not kept

    def read(self) -> list[Mapping]:
        """Return the mappings, ascending and disjoint; the same list if unchanged."""
        self._follow()
        return self._found

    def read_changed(self) -> list[Mapping] | None:
        """Return the mappings, or None if they are those of the last call.

        Use it without `read`. Between two calls few mappings are not kept, but a digest
        of them: a process that is read once in a while takes less memory.
        """
        if not self._follow():
            return None
        found = self._found
        if len(found) < _MANY:
            self._digest, self._text, self._found = hash(self._text), b"", []
        return found

    def forget(self) -> None:
        """Let the next call of `read_changed` return the mappings in any case."""
        self._digest, self._text, self._found = None, b"", []

    def count(self) -> int:
        """Return the number of mappings."""
        with self._opened() as fd:
            return self._read(fd).count(b"\n")

    def _follow(self) -> bool:
        """Read the mappings; return whether they have changed."""
        with self._opened() as fd:
            text = self._read(fd)
            changed = self._differs(text)
            if changed:
                self._take(text, fd)
        if not text:
            raise self.target.gone()
        return changed

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield the open maps; an error with them is that of the target."""
        try:
            fd = open_maps(self.target.pid)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            raise _unreadable(self.target, error) from error

    def _differs(self, text: bytes) -> bool:
        """Whether a text is not that of the last reading."""
        if self._digest is not None:
            return hash(text) != self._digest
        return text != self._text

    def _read(self, fd: int) -> bytes:
        """Read the text; before Linux 6.17 each read holds the target's mmap lock."""
        if self.target.pid == os.getpid():
            return _text(fd, self.target.meter)
        with native.keeping_the_processor(native.Pace()):
            return _text(fd, self.target.meter)

    def _take(self, text: bytes, fd: int) -> None:
        """Parse only the lines that have changed; the other mappings are reused."""
        head, tail = _same_lines(self._text, text) if self._disjoint else (0, 0)
        end, old = len(text) - tail, self._found
        before, behind = text.count(b"\n", 0, head), text.count(b"\n", end)
        middle, disjoint = _parse(text[head:end], fd, self.target)
        found = [*old[:before], *middle, *old[len(old) - behind :]]
        seams = (at for at in (before, before + len(middle)) if 0 < at < len(found))
        if any(found[at - 1].end > found[at].start for at in seams):
            found, disjoint = _parse(text, fd, self.target)
        self._text, self._found, self._disjoint = text, found, disjoint
        self._digest = None


def _text(fd: int, meter: native.Meter) -> bytes:
    """Read the text without [vsyscall], which is above user space, in no page table."""
    text = native.read_maps(fd, meter)
    last = text.rfind(b"\n", 0, -1) + 1
    return text[:last] if text.startswith(b"ffffffff", last) else text


def _same_lines(old: bytes, new: bytes) -> tuple[int, int]:
    """Return how many bytes, in whole lines, both texts share at start and at end."""
    most = min(len(old), len(new))
    head = _longest(most, lambda low, high: old[low:high] == new[low:high])
    head = new.rfind(b"\n", 0, head) + 1
    tail = _longest(
        most - head,
        lambda low, high: (
            old[len(old) - high : len(old) - low]
            == new[len(new) - high : len(new) - low]
        ),
    )
    begins = (len(old) - tail, len(new) - tail)
    # The common end may begin in the middle of a line, in one text or in both.
    if tail and not (_begins_line(old, begins[0]) and _begins_line(new, begins[1])):
        tail = len(new) - new.find(b"\n", begins[1]) - 1
    return head, tail


def _begins_line(text: bytes, at: int) -> bool:
    return at == 0 or text[at - 1] == ord("\n")


def _longest(most: int, same: Callable[[int, int], bool]) -> int:
    """Return the largest number for which `same` holds, by binary search."""
    known = 0
    while known < most:
        middle = (known + most + 1) // 2
        if same(known, middle):
            known = middle
        else:
            most = middle - 1
    return known


def _parse(text: bytes, fd: int, target: Target) -> tuple[list[Mapping], bool]:
    """Return the mappings of a text, and whether each line gave exactly one."""
    rows = native.parse_maps(text, fd, target.meter)
    sizes: Sequence[int] = rows.page_size
    if not rows.page_size_known and _may_be_hugetlb(rows):
        by_start = smaps_field(target.pid, b"KernelPageSize", target.meter)
        usual = {0, PAGE_SIZE}
        sizes = [
            0 if by_start.get(start, 0) in usual else by_start[start]
            for start in rows.start
        ]
    found = list(_mappings(text, rows, sizes))
    starts = [mapping.start for mapping in found]
    return found, starts == list(rows.start)


def _may_be_hugetlb(rows: native.MapsRows) -> bool:
    """Whether a mapping may be of hugetlbfs: its device has no major number."""
    pairs = zip(rows.inode, rows.device, strict=True)
    return any(inode and not device >> 32 for inode, device in pairs)


def _mappings(
    text: bytes, rows: native.MapsRows, sizes: Sequence[int]
) -> Iterable[Mapping]:
    last_end = 0
    for start, end, offset, inode, device, flags, at, length, size in zip(
        *rows[1:9], sizes, strict=True
    ):
        if end <= last_end:
            continue
        yield Mapping(
            max(start, last_end),
            end,
            _LETTERS[flags],
            offset,
            (device >> 32, device & 0xFFFFFFFF) if device else _NO_DEVICE,
            inode,
            sys.intern(os.fsdecode(text[at : at + length])) if length else "",
            size,
        )
        last_end = end


def read(target: Target) -> list[Mapping]:
    """Return the target's mappings, ascending and disjoint.

    Source: /proc/PID/maps, read by the MiB: faster than one PROCMAP_QUERY per line.
    It is not a snapshot, but a mapping that changes between two reads is listed once.

    Raises:
        NoSuchTargetError: The target is gone.
        PagescanError: The maps cannot be read: see `from_oserror`.
    """
    return Reader(target).read()


def count(target: Target) -> int:
    """Return how many mappings the target has; none of them is parsed.

    Raises:
        PagescanError: As for `read`.
    """
    return Reader(target).count()


def check_selection(selection: Selection, target: Target) -> list[str]:
    """As `Selection.check`, in a process; without RANGE words it is not read.

    Raises:
        PagescanError: As for `Selection.check`, and for `read`.
    """
    return [] if selection.everything else selection.check(read(target))


def begins(target: Target, address: int) -> bool:
    """Whether a mapping of the target begins at an address, at present.

    Raises:
        PagescanError: The maps cannot be read: see `from_oserror`.
    """
    try:
        maps = open_maps(target.pid)
        try:
            return native.mapping_begins(maps, address, target.meter)
        finally:
            os.close(maps)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        if error.errno == errno.ESRCH:
            raise target.gone(error) from error
        if error.errno != errno.ENOTTY:
            raise _unreadable(target, error) from error
    return any(mapping.start == address for mapping in read(target))


def _unreadable(target: Target, error: OSError) -> PagescanError:
    """Return the error for maps that cannot be opened or read."""
    return from_oserror(
        error, doing=f"read the mappings of {target}", pid=target.pid, call="read"
    )
