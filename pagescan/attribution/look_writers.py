"""The writers of single looks, with their names, for callers that store each look."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
from array import array
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pagescan import native
from pagescan.attribution.writer_totals import TID_MASK
from pagescan.model.errors import PagescanError
from pagescan.native.types import Columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagescan.attribution.group_samples import GroupSamples, Key
    from pagescan.attribution.process_writers import ProcessWriters
    from pagescan.attribution.symbols import Symbols
    from pagescan.attribution.thread_names import ThreadNames
    from pagescan.attribution.writers import WriterWatch
    from pagescan.model.groups import GroupTick
    from pagescan.model.looks import Look


class Source(NamedTuple):
    """Code and a thread that wrote pages of one mapping first.

    Attributes:
        function: The function; None: the code has no name.
        module: Its file or mapping; None: nothing was mapped there.
        tid: The thread.
        thread: Its name.
        mapping: Index of the mapping in the look's batch; -1: it was unmapped since.
        pages: How many pages.
    """

    function: str | None
    module: str | None
    tid: int
    thread: str
    mapping: int
    pages: int


class LookWriters(NamedTuple):
    """The writers of a look.

    Attributes:
        sources: The code and threads.
        runs: All written pages, as regions with one source. The category is its index
            in `sources` plus 1; 0: no sample tells the writer.
        attributed: Pages that have a writer.
        ambiguous: Pages with samples of different code; the latest one counts.
        lost: Pages without a writer, up to the number of samples that were lost.
        samples: The samples since the previous look.
    """

    sources: Sequence[Source]
    runs: Columns
    attributed: int
    ambiguous: int
    lost: int
    samples: int


class _Names(Protocol):
    """Knows the names of a process's code and threads."""

    @property
    def symbols(self) -> Symbols:
        """The names of the code of the present program."""

    @property
    def threads(self) -> ThreadNames:
        """The names of the threads."""


class WritersByLook:
    """Finds the writers of each look, and names them at once: nothing is added up.

    Attributes:
        watch: The samples.
    """

    def __init__(self, watch: WriterWatch) -> None:
        """Take the samples from a watch that follows the tracking."""
        self.watch = watch
        self._namer = _Namer(watch)

    @property
    def user_only(self) -> bool:
        """Whether writes of the kernel, as in read(2), have no sample."""
        return self.watch.user_only

    def of(self, look: Look) -> LookWriters:
        """Return the writers of a look that rearmed. Call it once per look."""
        watch = self.watch
        before = watch.totals.samples
        joined, lost = watch.join(look)
        return self._namer.named(look, joined, lost, watch.totals.samples - before)


class GroupWritersByLook:
    """Finds the writers of each look at the members of a group, and names them at once.

    Attributes:
        group: The samples of all members.
    """

    def __init__(self, group: GroupSamples) -> None:
        """Take the samples from the follower of a group."""
        self.group = group
        self._namers: dict[ProcessWriters, _Namer] = {}

    @property
    def user_only(self) -> bool:
        """Whether writes of the kernel, as in read(2), have no sample."""
        return self.group.user_only

    def of(self, tick: GroupTick) -> dict[Key, LookWriters]:
        """Return the writers of all looks of a tick, by pid and start time.

        Call it once per tick.
        """
        found: dict[Key, LookWriters] = {}

        def join(process: ProcessWriters, look: Look, lost: int) -> int:
            namer = self._namers.get(process)
            if namer is None:
                namer = self._namers[process] = _Namer(process)
            samples = process.take_count()
            one = namer.named(look, process.join(look), lost, samples)
            facts = process.facts
            found[facts.pid, facts.start_time] = one
            return one.lost

        def let_go(process: ProcessWriters) -> None:
            self._namers.pop(process, None)
            process.close()

        self.group.share_out(tick, join, let_go)
        return found


class _Namer:
    """Names the writers of the looks at one process."""

    def __init__(self, names: _Names) -> None:
        self._of = names
        self._known: set[int] = set()

    def named(
        self, look: Look, joined: native.Writers, lost: int, samples: int
    ) -> LookWriters:
        """Return the writers of a look with their names.

        Args:
            look: The look.
            joined: The writers of its pages.
            lost: The lost samples that may be of its pages.
            samples: The samples since the previous look.
        """
        with contextlib.suppress(PagescanError):  # it has ended
            self._of.symbols.refresh()
        of_ip = self._names(joined)
        owners = look.batch.owners
        rows: dict[tuple[tuple[str | None, str | None], int, int], int] = {}
        runs = Columns(joined.starts, joined.ends, array("Q"))
        owner = array("q", map(owners.__getitem__, joined.regions))
        for ip, thread, at in zip(joined.ips, joined.threads, owner, strict=True):
            number = 0
            if thread:
                key = (of_ip[ip], thread & TID_MASK, at)
                number = rows.setdefault(key, len(rows) + 1)
            runs.categories.append(number)
        size = look.batch.page_size
        pages = native.tally(runs, array("q", runs.categories), size, len(rows) + 1)[0]
        threads = self._of.threads
        sources = [
            Source(*code, tid, threads.of(tid), at, count)
            for (code, tid, at), count in zip(rows, pages[1:], strict=True)
        ]
        missing = sum(pages) - joined.attributed
        return LookWriters(
            sources,
            runs,
            joined.attributed,
            joined.ambiguous,
            min(lost, missing),
            samples,
        )

    def _names(
        self, joined: native.Writers
    ) -> dict[int, tuple[str | None, str | None]]:
        """Return the function and the module of each address; read new threads."""
        threads = {thread & TID_MASK for thread in set(joined.threads) - {0}}
        self._of.threads.learn(threads - self._known)
        self._known |= threads
        ips = array("Q", set(joined.ips) - {0})
        names = self._of.symbols.name(ips)
        return {
            ip: (name.function, name.module)
            for ip, name in zip(ips, names, strict=True)
        }
