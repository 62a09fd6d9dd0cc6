"""Huge pages that tracking has split, put back."""

from collections.abc import Callable

from pagescan.native.door import check, ffi, lib
from pagescan.native.pace import Meter, Pace, c_pace


class Collapse:
    """Makes split huge pages huge again, one mapping after another.

    Attributes:
        at: The address that it has reached.
        only_count: Whether to put nothing back, and count it as lost.
        restored: Bytes that are huge again.
        lost: Bytes that are populated, and not in a huge page.
        denied: The part of them that only lacks CAP_SYS_NICE.
    """

    def __init__(self, pagemap: int, pidfd: int, size: int) -> None:
        """Prepare it for a target.

        Args:
            pagemap: The target's open /proc/PID/pagemap.
            pidfd: The target's; -1: this process.
            size: Bytes of a huge page.
        """
        self._job = ffi.new("struct ps_collapse *")
        self._job.pagemap, self._job.pidfd, self._job.size = pagemap, pidfd, size
        self.only_count = False
        self.denied = 0

    def run(
        self,
        start: int,
        end: int,
        file: int,
        offset: int,
        pace: Pace,
        meter: Meter,
        interrupted: Callable[[], bool],
    ) -> bool:
        """Put back the huge pages of [start, end), a part of one mapping.

        Args:
            start: A multiple of the size.
            end: Exclusive; a part of a huge page is left out.
            file: The file behind shared memory; -1: private memory.
            offset: The offset of `start` in that file.
            pace: How the target's mmap lock is spared.
            meter: The cost is added to it.
            interrupted: Called every 50 ms; if True, the rest is only counted.

        Returns:
            Whether it was interrupted.

        Raises:
            OSError: ESRCH, the address space is gone.
        """
        job, stopped = self._job, False
        job.start = job.at = start
        job.end, job.file, job.offset = end, file, offset
        cost = ffi.new("struct ps_cost *")
        paced = ffi.new("struct ps_pace *", c_pace(pace))
        try:
            while True:
                before = job.denied
                job.refused = job.refused or self.only_count
                more = check(lib.ps_collapse(job, paced, cost))
                if not self.only_count:
                    self.denied += job.denied - before
                if not more:
                    return stopped
                if not stopped and interrupted():
                    self.only_count = stopped = True
        finally:
            meter.add(cost)
            pace.held_ns = paced.held_ns

    @property
    def at(self) -> int:
        """The address that it has reached."""
        return int(self._job.at)

    @property
    def restored(self) -> int:
        """Bytes that are huge again."""
        return int(self._job.restored)

    @property
    def lost(self) -> int:
        """Bytes that are populated, and not in a huge page."""
        return int(self._job.lost)
