"""GetWriteWatch() and ResetWriteWatch() of Windows, for memory of this process.

    with WriteWatch(1 << 20) as watch:
        watch.buffer[5000] = 1
        addresses, granularity = watch.get(reset=True)

The loops, and the interface for C programs, are in native/shim_watch.c. Source of the
semantics: the documentation of GetWriteWatch and ResetWriteWatch (memoryapi.h).
"""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from typing import Self

from pagescan import native
from pagescan.model.errors import PagescanError, UsageError, from_oserror
from pagescan.model.memory import PAGE_SIZE

# Loaded now: a process without a free descriptor can load nothing later.
from pagescan.native import process as _process, uffd as _uffd, watch as _watch  # noqa: F401
from pagescan.target import wp_async


def library() -> str:
    """Return the path of the shared object that `pagescan_writewatch.h` declares.

    Open it by dlopen(3) with RTLD_LAZY; it needs no running Python.
    """
    return native.library()


def get_include() -> str:
    """Return the directory of `pagescan_writewatch.h`, for the compiler's -I."""
    return os.path.join(os.path.dirname(__file__), "native", "include")


class WriteWatch:
    """Memory that records its written pages, like VirtualAlloc(MEM_WRITE_WATCH).

    It has no huge pages, so one store marks one page. Threads may store and call `get`
    at the same time: `get` returns and resets a page in one step, so no page is lost,
    and none is returned twice for one store. It is a context manager.

    Attributes:
        address: Its first address, page-aligned.
        size: Its length in bytes, as asked for; the last page is mapped whole.

    Examples:
        >>> from pagescan.writewatch import WriteWatch
        >>> with WriteWatch(1 << 20) as watch:
        ...     watch.buffer[5000] = 1
        ...     pages, granularity = watch.get(reset=True)
        >>> pages[0] == watch.address + granularity, len(pages)
        (True, 1)
    """

    def __init__(self, size: int) -> None:
        """Allocate `size` bytes of zeros; no page counts as written.

        Raises:
            UsageError: The size is not above zero, or exceeds the address space.
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
        """Return the pages written since they were allocated or last reset.

        Args:
            start: Offset of the part to ask about; pages are counted whole.
            size: Length of that part in bytes; None: to the end of the memory.
            count: Return at most this many pages; for more, ask again behind the last.
            reset: Also reset the returned pages, and only them, in the same step.

        Returns:
            The addresses of the pages, ascending, as array('Q'); the bytes per page.

        Raises:
            UsageError: The part is not within the memory, or count is below one.
            PagescanError: This is a child of fork, or some part is no longer watched.
            ValueError: The write watch is closed.
        """
        if count is None:
            count = native.ALL_PAGES
        elif count < 1:
            raise UsageError(f"count must be above zero, not {count}")
        with memoryview(self._open()):  # while it exists no other thread can close
            size = self._part(start, size)
            try:
                pages = self._watch.get(
                    self.address + start, size, reset=reset, limit=count
                )
            except OSError as error:
                raise _lost(error) from error
        return pages, PAGE_SIZE

    def reset(self, start: int = 0, size: int | None = None) -> None:
        """Mark the pages of a part as not written; errors as in `get`."""
        with memoryview(self._open()):
            size = self._part(start, size)
            try:
                self._watch.reset(self.address + start, size)
            except OSError as error:
                raise _lost(error) from error

    def close(self) -> None:
        """Free the memory; closing it again does nothing.

        Raises:
            BufferError: Views of its buffer exist, or another thread is in `get` or
                `reset`. The memory is still open.
        """
        self._memory.close()

    def _open(self) -> mmap.mmap:
        if self._memory.closed:
            raise ValueError("the write watch is closed")
        return self._memory

    def _part(self, start: int, size: int | None) -> int:
        """Return the size of a part; UsageError if it is not within the memory."""
        size = self.size - start if size is None else size
        if start < 0 or size <= 0 or start + size > self.size:
            raise UsageError(
                f"[{start}, {start + size}) is not a part of {self.size} bytes"
            )
        return size

    def __repr__(self) -> str:
        state = "closed" if self._memory.closed else f"at {self.address:#x}"
        return f"<WriteWatch of {self.size} bytes: {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal(error: OSError) -> PagescanError:
    """Return the error that says why memory cannot be watched."""
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES):
        try:
            os.close(wp_async.open_own())
        except PagescanError as why:
            return why
    return from_oserror(error, doing="watch writes of this process")


def _lost(error: OSError) -> PagescanError:
    """Return the error that says why an existing watch does not answer."""
    if error.errno == errno.ESRCH:
        return PagescanError(
            "nothing watches this memory: a write watch does not follow a fork",
            hint="make a new WriteWatch in the child",
        )
    if error.errno in (errno.EPERM, errno.EBADF, errno.ENOTTY):
        return PagescanError(
            "the write watch is lost: this process mapped its memory again, or closed a"
            " descriptor of it",
            hint="close only descriptors that you opened; make a new WriteWatch",
        )
    return from_oserror(error, doing="get the written pages of this process")
