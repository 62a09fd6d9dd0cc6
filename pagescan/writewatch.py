"""GetWriteWatch() and ResetWriteWatch() of Windows, on memory of one's own.

    with WriteWatch(1 << 20) as watch:
        watch.buffer[5000] = 1
        addresses, granularity = watch.get(reset=True)

The loops, and the same for C programs, are in native/shim_watch.c. Source of the
semantics: the documentation of GetWriteWatch and ResetWriteWatch (memoryapi.h).
"""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from typing import TYPE_CHECKING, Self

from pagescan import native, wp_async
from pagescan.errors import PagescanError, UsageError, from_oserror
from pagescan.target import PAGE_SIZE

if TYPE_CHECKING:
    from types import TracebackType


def library() -> str:
    """Return the shared object whose functions `pagescan_writewatch.h` declares.

    For dlopen(3) with RTLD_LAZY; it needs no Python that runs.
    """
    return native.library()


def get_include() -> str:
    """Return the directory of `pagescan_writewatch.h`, for the compiler's -I."""
    return os.path.join(os.path.dirname(__file__), "include")


class WriteWatch:
    """Memory whose written pages can be asked for: VirtualAlloc(MEM_WRITE_WATCH).

    One store is one page: huge pages are off for it. Threads may store meanwhile, and
    get: a page is got and reset in one step, so none is lost, and none is got twice for
    one store. A context manager.

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
            UsageError: The size is not above zero, or more than there can be.
            KernelUnsupportedError: No userfaultfd with asynchronous write-protect.
            AccessDeniedError: A seccomp filter forbids userfaultfd(2).
        """
        if size <= 0:
            raise UsageError(f"a write watch needs a size above zero, not {size}")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self._memory = mmap.mmap(-1, size, flags=flags)
        except OverflowError as error:
            raise UsageError(f"no address space has {size} bytes") from error
        except OSError as error:
            raise from_oserror(
                error, doing=f"allocate {size} bytes to be watched", call="mmap"
            ) from error
        self.size = size
        self.address = native.address_of(self._memory)
        try:
            self._watch = native.Watch(self.address, size)
        except OSError as error:
            self._memory.close()
            raise _refusal(error) from error

    @property
    def buffer(self) -> memoryview:
        """The memory: writable, `size` bytes. Views must go before `close`."""
        return memoryview(self._open())

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
            PagescanError: This is a child of fork, or a part is watched no longer.
            ValueError: It is closed.
        """
        if count is None:
            count = native.ALL_PAGES
        elif count < 1:
            raise UsageError(f"count must be above zero, not {count}")
        with memoryview(self._open()):  # so that no other thread closes it meanwhile
            size = self._part(start, size)
            try:
                pages = self._watch.get(
                    self.address + start, size, reset=reset, limit=count
                )
            except OSError as error:
                raise _lost(error) from error
        return pages, PAGE_SIZE

    def reset(self, start: int = 0, size: int | None = None) -> None:
        """Forget what was written in a part: it counts from now; errors as of `get`."""
        with memoryview(self._open()):
            size = self._part(start, size)
            try:
                self._watch.reset(self.address + start, size)
            except OSError as error:
                raise _lost(error) from error

    def close(self) -> None:
        """Free the memory; once more does nothing.

        Raises:
            BufferError: Views of its buffer are alive, or another thread is in `get` or
                `reset`; nothing was done.
        """
        self._memory.close()

    def _open(self) -> mmap.mmap:
        if self._memory.closed:
            raise ValueError("the write watch is closed")
        return self._memory

    def _part(self, start: int, size: int | None) -> int:
        """Return the size of a part that is there."""
        size = self.size - start if size is None else size
        if start < 0 or size <= 0 or start + size > self.size:
            raise UsageError(
                f"[{start}, {start + size}) is not a part of {self.size} bytes"
            )
        return size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _refusal(error: OSError) -> PagescanError:
    """Say why memory cannot be watched: the kernel's no, a filter's, or another."""
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES):
        try:
            os.close(wp_async.open_own())
        except PagescanError as why:
            return why
    return from_oserror(error, doing="watch writes of this process")


def _lost(error: OSError) -> PagescanError:
    """Say why a watch that was there cannot be asked."""
    if error.errno == errno.ESRCH:
        return PagescanError(
            "this is plain memory: a write watch does not follow a fork",
            hint="make a new WriteWatch in the child",
        )
    if error.errno in (errno.EPERM, errno.EBADF, errno.ENOTTY):
        return PagescanError(
            "the write watch is lost: its memory was mapped anew, or a descriptor of it"
            " closed, by this process",
            hint="close only descriptors that are yours; make a new WriteWatch",
        )
    return from_oserror(error, doing="get the written pages of this process")
