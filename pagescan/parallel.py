"""A scan cut into disjoint parts for several threads; their answers put together.

The shim lets go of the interpreter's lock, so two threads are twice as fast.
"""

import contextlib
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence

from pagescan.native import Columns, Meter, Pace, Spans

# Below this many bytes a second thread costs more than it saves.
_WORTH_IT = 1 << 30

ScanPart = Callable[[Spans, Pace, Meter], Columns]


def split(spans: Spans, parts: int, align: int) -> list[Spans]:
    """Cut spans into about equal parts, ascending, at multiples of `align` bytes."""
    total = sum(spans.ends) - sum(spans.starts)
    if total < _WORTH_IT:
        return [spans]
    share = total // parts + align
    cut: list[Spans] = []
    room = 0
    for start, end, rule in zip(*spans, strict=True):
        at = start
        while at < end:
            if room <= 0:
                cut.append(Spans(array("Q"), array("Q"), array("Q")))
                room = share
            stop = at + room
            stop = end if stop >= end else max(stop - stop % align, at + 1)
            stop = min(end, stop + -stop % align)
            for column, value in zip(cut[-1], (at, stop, rule), strict=True):
                column.append(value)
            room -= stop - at
            at = stop
    return cut


def in_threads(
    scan_part: ScanPart, parts: Sequence[Spans], threads: int, pace: Pace, meter: Meter
) -> Columns:
    """Scan parts in several threads and return their regions in the parts' order.

    Raises:
        OSError: Of the first part that failed.
    """
    if len(parts) == 1:
        return scan_part(parts[0], pace, meter)
    answers: list[Columns | OSError | None] = [None] * len(parts)
    meters: list[Meter] = []
    waiting = deque(enumerate(parts))

    def work() -> None:
        own_pace, own_meter = Pace(pace.max_stall_ns, pace.pause_ns), Meter()
        own_pace.progress = pace.progress
        meters.append(own_meter)
        with contextlib.suppress(IndexError):
            while True:
                index, part = waiting.popleft()
                try:
                    answers[index] = scan_part(part, own_pace, own_meter)
                except OSError as error:
                    answers[index] = error
                    waiting.clear()

    # This one works as well: to start a thread takes as long as to scan 256 MiB.
    workers = [threading.Thread(target=work) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    try:
        work()
    finally:  # Ctrl-C: the others have nothing more to begin
        waiting.clear()
        for worker in workers:
            worker.join()
    for own_meter in meters:
        meter.add(own_meter)
    return _put_together(answers)


def _put_together(answers: Sequence[Columns | OSError | None]) -> Columns:
    result = Columns.empty()
    for answer in answers:
        if isinstance(answer, OSError):
            raise answer
        for column, piece in zip(result, answer or Columns.empty(), strict=True):
            column.extend(piece)
    return result
