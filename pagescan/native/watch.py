"""Write watches over memory of this process: pagescan_writewatch.h."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array

from pagescan.native.door import check, ffi, lib
from pagescan.native.types import ALL_PAGES, ZERO


class Watch:
    """The writes to private anonymous memory, by pagescan_writewatch.h.

    Each method is one call, from any thread; addresses are bytes. The memory must stay
    mapped.
    """

    __slots__ = ("_c", "_likely", "_page")

    def __init__(self, address: int, size: int) -> None:
        """Watch existing memory of `size` bytes; the last page counts whole."""
        self._c = ffi.new("struct pagescan_watch *")
        self._likely = 64
        check(lib.pagescan_watch_adopt(self._c, ffi.cast("void *", address), size))
        self._page = int(self._c.page)

    def get(
        self, start: int, size: int, *, reset: bool, limit: int = ALL_PAGES
    ) -> array[int]:
        """Return the addresses of up to `limit` written pages.

        Raises:
            OSError: EINVAL, not a part of the memory; ESRCH, this is a forked child;
                EPERM, a part is no longer watched.
        """
        end = start + size
        # Not one element per page of the memory: the list is as long as the last one
        # was, and grows if that was too short.
        room = min(limit, size // self._page + 2, self._likely)
        pages: array[int] = ZERO * room
        have = 0
        while True:
            at, _ = pages.buffer_info()
            have += check(
                lib.ps_watch_get(
                    self._c, reset, start, end - start, at + 8 * have, room - have
                )
            )
            if have < room or room == limit:
                break
            start = pages[-1] + self._page
            if start >= end:
                break
            room = min(limit, 4 * room)
            pages.extend(ZERO * (room - have))
        del pages[have:]
        self._likely = max(have + 1, 64)
        return pages

    def reset(self, start: int, size: int) -> None:
        """Forget the writes to a part; errors as for `get`."""
        check(lib.ps_watch_reset(self._c, start, size))
