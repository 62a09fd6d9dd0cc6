"""GetWriteWatch() and ResetWriteWatch() of Windows, on memory of one's own.

    with WriteWatch(1 << 20) as watch:
        watch.buffer[5000] = 1
        addresses, granularity = watch.get(reset=True)

Source of the semantics: the documentation of GetWriteWatch (memoryapi.h).
"""

from __future__ import annotations

import mmap
import os
import threading
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pagescan import native
from pagescan.errors import PagescanError, UsageError, from_errno
from pagescan.model import Category, Kind
from pagescan.native import ALL_PAGES, Meter, Pace, Rule, Spans
from pagescan.scanner import Query, rule_for
from pagescan.target import PAGE_SIZE

if TYPE_CHECKING:
    from types import TracebackType

# Nobody but us waits for our own mmap lock: no slices and no pauses.
_UNPACED = Pace(max_stall_ns=1 << 40, pause_ns=0)


class _Process:
    """What all watches of this process share: one userfaultfd and one pagemap.

    After a fork the descriptors speak of the parent's memory: the child has its own.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.uffd = self.pagemap = -1
        self.lock = threading.Lock()

    def ready(self) -> Self:
        """Open the descriptors, once in each process that watches."""
        with self.lock:
            if self.pid != os.getpid():
                try:
                    self.uffd = native.uffd_open()
                    native.uffd_api(self.uffd)
                    flags = os.O_RDONLY | os.O_CLOEXEC
                    self.pagemap = os.open("/proc/self/pagemap", flags)
                except OSError as error:
                    raise from_errno(
                        error.errno or 0, doing="watch writes of this process"
                    ) from error
                self.pid = os.getpid()
        return self


_process = _Process()


class WriteWatch:
    """Memory whose written pages can be asked for: VirtualAlloc(MEM_WRITE_WATCH).

    One store is one page: huge pages are off for it. Threads may store meanwhile: a
    page is got and reset in one step, so none is lost. A context manager.

    Attributes:
        address: Where it lies, page-aligned.
        size: Bytes, as asked for; the last page is whole all the same.

    Examples:
        >>> from pagescan.writewatch import WriteWatch
        >>> with WriteWatch(1 << 20) as watch:
        ...     watch.buffer[5000] = 1
        ...     pages, granularity = watch.get(reset=True)
        >>> pages[0] == watch.address + granularity, len(pages)
        (True, 1)
    """

    def __init__(self, size: int) -> None:
        """Allocate `size` bytes of zeros, none of them written.

        Raises:
            UsageError: The size is not above zero.
            KernelUnsupportedError: No userfaultfd with asynchronous write-protect.
        """
        if size <= 0:
            raise UsageError(f"a write watch needs a size above zero, not {size}")
        self._process = _process.ready()
        self._pid = self._process.pid
        self.size = size
        self._length = size + -size % PAGE_SIZE
        self._memory = mmap.mmap(
            -1, self._length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.address = native.address_of(self._memory)
        end = self.address + self._length
        native.uffd_register(self._process.uffd, self.address, end)
        query = Query(require=Category.WRITTEN, returned=Category.WRITTEN)
        rule = rule_for(Kind.ANON, query)
        if rule is None:  # a private anonymous page can be written
            raise AssertionError
        self._look = _with(rule, protect=False)
        self._take = _with(rule, protect=True)

    @property
    def buffer(self) -> memoryview:
        """The memory: writable, `size` bytes. Views must go before `close`."""
        return memoryview(self._memory)[: self.size]

    def get(
        self,
        start: int = 0,
        size: int | None = None,
        count: int | None = None,
        *,
        reset: bool = False,
    ) -> tuple[array[int], int]:
        """Return the pages written since allocation, or since they were reset.

        Args:
            start: Offset of the part that is asked for; its whole page counts.
            size: Bytes of that part; None: to the end.
            count: How many pages at most; go on behind the last one.
            reset: Forget what is returned, and only that, in the same step.

        Returns:
            The addresses of the pages, ascending, as array('Q'); bytes of a page.

        Raises:
            UsageError: The part is not within the memory, or count is below one.
        """
        if count is not None and count < 1:
            raise UsageError(f"count must be above zero, not {count}")
        limit = ALL_PAGES if count is None else count
        found = self._scan(self._take if reset else self._look, start, size, limit)
        pages = array("Q")
        for low, high in zip(found.starts, found.ends, strict=True):
            pages.extend(range(low, high, PAGE_SIZE))
        return pages, PAGE_SIZE

    def reset(self, start: int = 0, size: int | None = None) -> None:
        """Forget what was written in a part: it counts from now."""
        self._scan(self._take, start, size, ALL_PAGES)

    def close(self) -> None:
        """Free the memory.

        Raises:
            BufferError: Views of its buffer are alive; nothing was done.
        """
        self._memory.close()

    def _scan(
        self, rule: Rule, start: int, size: int | None, limit: int
    ) -> native.Columns:
        if self._memory.closed:
            raise ValueError("the write watch is closed")
        if self._pid != os.getpid():
            raise PagescanError(
                "this is plain memory: a write watch does not follow a fork",
                hint="make a new WriteWatch in the child",
            )
        size = self.size - start if size is None else size
        if start < 0 or size <= 0 or start + size > self.size:
            raise UsageError(
                f"[{start}, {start + size}) is not a part of {self.size} bytes"
            )
        low = self.address + start - start % PAGE_SIZE
        end = self.address + start + size
        spans = Spans(
            array("Q", [low]), array("Q", [end + -end % PAGE_SIZE]), array("Q", [0])
        )
        return native.scan(
            self._process.pagemap,
            spans,
            [rule],
            max_pages=limit,
            pace=_UNPACED,
            meter=Meter(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _with(rule: Rule, *, protect: bool) -> Rule:
    return replace(rule, protect=protect, limited=True)
