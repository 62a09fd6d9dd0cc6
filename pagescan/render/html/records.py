"""The contents of a page: facts, mappings, looks, and their written pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pagescan.native import Columns


class PageProcess(NamedTuple):
    """A program that was recorded."""

    pid: int
    name: str
    ending: str | None = None


class PageMapping(NamedTuple):
    """A mapping, and the looks at which it existed.

    Attributes:
        process: Index of the process.
        start: Its first address.
        end: The address behind it.
        name: Its label, or its name.
        first: Index of the first look at which it existed.
        last: Index of the last one.
    """

    process: int
    start: int
    end: int
    name: str
    first: int
    last: int


class PageLook(NamedTuple):
    """A look without its written pages.

    Attributes:
        process: Index of the process.
        from_ns: The end of the look before it, in nanoseconds since 1970.
        to_ns: Its own end.
        pages: Written pages; with a budget, the estimate for all memory.
        resident: Resident bytes of the process then; None: not known.
        share: The part of the target's processor time that it cost; None: not known.
        used_ns: That processor time; None: not known.
        mappings: Indices of the mappings that have written pages.
        counts: The written pages of each of these.
    """

    process: int
    from_ns: int
    to_ns: int
    pages: int
    resident: int | None
    share: float | None
    used_ns: int | None
    mappings: Sequence[int]
    counts: Sequence[int]


class PageWriter(NamedTuple):
    """A function that wrote, or the pages of which the writer is not known.

    Attributes:
        function: Its name.
        module: The last part of its file's path, or its mapping; "": none is known.
        thread: The thread that wrote most; "": none is known.
        threads: How many threads wrote.
        mapping: The mapping in which it wrote most; "": none is known.
        pages: The pages that it wrote first in a look, added up over the looks.
        share: The part of all written pages, 0 to 1.
        process: The process in which it wrote most; "": one process was recorded.
        processes: In how many processes it wrote.
    """

    function: str
    module: str
    thread: str
    threads: int
    mapping: str
    pages: int
    share: float
    process: str = ""
    processes: int = 0


@dataclass(frozen=True, slots=True)
class PageContents:
    """All that a page shows.

    Attributes:
        host: The name of the machine.
        kernel: The release of its kernel.
        version: The version of pagescan that recorded.
        page_size: Bytes per page.
        budget: The percentage of --budget; None: everything was tracked.
        processes: The programs.
        mappings: All mappings of all times.
        looks: The looks, in the order of time.
        columns: Returns the written pages of the look with an index.
        packed: Returns for looks of one process how many regions each has, and their
            packed form.
        writers: The functions, those that wrote most first; empty: not recorded.
        notes: Lines that the page shows above everything else, as for a damaged file.
    """

    host: str
    kernel: str
    version: str
    page_size: int
    budget: float | None
    processes: Sequence[PageProcess]
    mappings: Sequence[PageMapping]
    looks: Sequence[PageLook]
    columns: Callable[[int], Columns]
    packed: Callable[[Sequence[int]], list[tuple[int, bytes]]]
    writers: Sequence[PageWriter] = field(default=())
    notes: Sequence[str] = field(default=())
