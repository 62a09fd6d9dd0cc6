"""Sessions from a command's side: start one, look through it, end it."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.looks import Look
from pagescan.model.memory import Category
from pagescan.model.ranges import ranges_of, union, unlabelled
from pagescan.model.results import Cost
from pagescan.native import Columns, Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session import pending
from pagescan.session.client import Client, directory_of
from pagescan.session.locks import Lock, where
from pagescan.session.record import Session, session_of
from pagescan.session.unregistered import resumed
from pagescan.target.maps import read
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.arm import MAX_TABLES
from pagescan.tracking.huge_pages import HugePages, Restored
from pagescan.tracking.mapping_count import count_alike
from pagescan.tracking.tracking import Tracking


def start(
    target: Target,
    selection: Selection,
    *,
    max_tables: int = MAX_TABLES,
    pace: Pace | None = None,
) -> Tracking:
    """Arm a target and hand it over to a keeper; undo everything on an error.

    Returns:
        The armed state, and the cost; the userfaultfd now belongs to the keeper.
    """
    from pagescan.session import spawn as keeper

    lock = Lock.take(target.pid)
    try:
        tracking = Tracking.start(target, selection, max_tables=max_tables, pace=pace)
        try:
            _remember(lock.directory, target.pid, tracking.armed.huge)
            keeper.start(
                session_of(tracking, "keeper"),
                lock,
                tracking.uffd,
                target.pidfd,
                target.pagemap,
            )
        except BaseException:
            tracking.close()
            raise
    except BaseException:
        lock.remove()
        lock.close()
        raise
    lock.close()
    tracking.hand_over()
    return tracking


def end(
    found: Session,
    *,
    restore_huge: bool = True,
    pace: Pace | None = None,
) -> tuple[Cost, Restored]:
    """Disarm, and put back the huge pages that tracking has split.

    Args:
        found: The session.
        restore_huge: False: only count them.
        pace: How the target's mmap lock is spared.

    Returns:
        The cost to the target, and the result for its huge pages. A Ctrl-C in that time
        is part of the result, and is not raised.
    """
    from pagescan.session import spawn as keeper

    pace = pace or Pace()
    with _directory(found) as directory:
        units = pending.load_huge(directory, found.target.pid)
    cost = keeper.end(found, pace.max_stall_ns)
    restored = Restored()
    with (
        contextlib.suppress(PagescanError),  # the target has ended
        Target.open(found.target.pid, start_time=found.target.start_time) as target,
    ):
        there = read(target)
        added = max(0, count_alike(there) - found.alike)
        cost = replace(cost, mappings_added=added)
        if units is not None:
            scanner = Scanner(target, pace)
            restored = HugePages(units).restore(
                scanner, there, only_count=not restore_huge
            )
            cost += scanner.take_cost()
    if units is not None:
        cost += restored.cost
    return cost, restored


def _remember(directory: int, pid: int, huge: HugePages) -> None:
    """Store a session's huge pages beside it; with a full disk they are unknown."""
    with contextlib.suppress(OSError):
        pending.store_huge(directory, pid, huge.units)


class Opened:
    """An open session, through which a command looks.

    Attributes:
        before: Its facts when it was opened.
        target: Its process.
        tracking: The tracking that looks.
    """

    def __init__(self, client: Client, target: Target, pace: Pace | None) -> None:
        """Take over an open client; only `opened` calls this."""
        self.before = before = client.session
        self.target = target
        self.tracking = resumed(before, Scanner(target, pace), client.uffd, pace)
        self._client = client

    def pending(self) -> Columns | None:
        """Return the pages that the consumer of checkpoints may lack; None: unknown."""
        if self.before.acknowledged < 0:
            return None
        with _directory(self.before) as directory:
            return pending.load(directory, self.target.pid, self.before.epoch)

    def with_ends(self, written: Columns) -> Columns:
        """Add the growing ends to the pages that an image may lack.

        They are compared. An image made after a look may contain bytes that no look has
        seen, although the next look finds earlier changes.
        """
        ends = ranges_of((end["start"], end["end"]) for end in self.before.ends)
        return union(written, unlabelled(ends)) if self.before.ends else written

    def unchanged(self) -> None:
        """Leave the facts as they are: nothing was protected."""
        self._client.commit()

    def found(self) -> Columns:
        """Return the pages of rearming looks that were not delivered."""
        with _directory(self.before) as directory:
            return pending.load_found(directory, self.target.pid)[1]

    def keep_found(self, found: Columns) -> bool:
        """Store the result of a look until it is delivered; False: the disk is full."""
        pid, epoch = self.target.pid, self.tracking.armed.epoch
        with _directory(self.before) as directory:
            try:
                pending.store_found(directory, pid, epoch, found)
            except OSError:
                return False
        return True

    def rearmed(self, protected: Columns, since: datetime | None) -> None:
        """Store the facts after pages were protected; a consumer may lack these.

        No other command may rearm until `delivered`: it would find the same pages.
        """
        lacking = self.pending()
        if lacking is None:
            self.commit(since, None, -1, hold=True)
        else:
            lacking = union(lacking, protected)
            self.commit(since, lacking, self.before.acknowledged, hold=True)

    def delivered(self, left: Columns, since: datetime | None) -> None:
        """Move the baseline, because the result of the look has arrived.

        Args:
            left: Pages that still have to be delivered.
            since: The new baseline.
        """
        if self.keep_found(left):
            self._client.session = replace(self._client.session, since=since)
        self._client.commit()

    def commit(
        self,
        since: datetime | None,
        lacking: Columns | None,
        acknowledged: int,
        planned: int | None = None,
        *,
        hold: bool = False,
    ) -> bool:
        """Store the facts, and the pages that the consumer may lack.

        Args:
            since: The baseline.
            lacking: The pages that the consumer may lack; None: unknown.
            acknowledged: The epoch whose image the consumer has.
            planned: The epoch of the last plan; None: unchanged.
            hold: Keep the right to rearm, for another commit.

        Returns:
            False if the list could not be stored (a full disk): the next plan is
            complete.
        """
        kept = True
        pid, epoch = self.target.pid, self.tracking.armed.epoch
        if lacking is not None:
            with _directory(self.before) as directory:
                try:
                    pending.store(directory, pid, epoch, lacking)
                except OSError:
                    acknowledged, kept = -1, False
        if self.tracking.armed.huge.units.starts:
            with _directory(self.before) as directory:
                units = pending.load_huge(directory, pid)
                if units is not None:
                    self.tracking.armed.huge.learn(units)
                    _remember(directory, pid, self.tracking.armed.huge)
        self._client.session = replace(
            self.before.after(self.tracking.armed, since),
            planned=self.before.planned if planned is None else planned,
            acknowledged=acknowledged,
        )
        self._client.commit(hold=hold)
        return kept


@contextlib.contextmanager
def opened(
    found: Session, *, rearm: bool = False, pace: Pace | None = None
) -> Iterator[Opened]:
    """Open a session; with `rearm` no other command may rearm it until it is closed.

    Raises:
        SessionError: The session has ended, or does not answer.
        TargetError: The target has ended, or runs another program.
    """
    with (
        Target.open(found.target.pid, start_time=found.target.start_time) as target,
        Client(found) as client,
    ):
        if rearm:
            client.begin()
        else:
            client.open()
        if not client.alive:
            client.end()
            raise target.gone()
        yield Opened(client, target, pace)


@contextlib.contextmanager
def looking(
    found: Session, *, rearm: bool = False, pace: Pace | None = None
) -> Iterator[tuple[Session, Look]]:
    """Look through a session; yield its earlier facts, and the look.

    With `rearm` the baseline moves when the block ends without an exception. Until then
    the result is stored with the session, so a full disk, a closed pipe or a kill while
    it is written loses nothing: the next look finds it again. No other command can
    rearm the session in that time, because it would find these pages, too.
    """
    kept = False
    with contextlib.ExitStack() as undo:
        through = undo.enter_context(opened(found, rearm=rearm, pace=pace))
        tracking = through.tracking
        with _undisturbed():
            before = through.found()
            look = tracking.look(rearm=rearm)
            if before.starts:
                look = replace(look, batch=look.batch.above(before))
            if rearm:
                columns = look.batch.columns()
                kept = through.keep_found(columns)
                lacking = through.with_ends(columns)
                through.rearmed(lacking, through.before.since if kept else None)
        if not rearm:
            undo.close()
            yield through.before, look
            return
        with _delivering(through, Columns.empty(), tracking.since, kept=kept):
            yield through.before, look


def look_at(
    found: Session, *, rearm: bool = False, pace: Pace | None = None
) -> tuple[Session, Look]:
    """Look through a session; return its earlier facts, and the look, as delivered."""
    with looking(found, rearm=rearm, pace=pace) as result:
        return result


@contextlib.contextmanager
def protecting(
    found: Session, protect: Callable[[int], Batch], *, written: bool
) -> Iterator[tuple[Session, Batch]]:
    """Protect pages of a session; yield its earlier facts, and the protected pages.

    The written ones among them are stored until the block ends without an exception, as
    for `looking`. After that the baseline is mixed.

    Args:
        found: The session.
        protect: Called with the userfaultfd; returns the protected pages.
        written: Whether these have the category `written` where it applies; otherwise
            all of them count as written.
    """
    with opened(found, rearm=True) as through:
        with _undisturbed():
            tracking = through.tracking
            before = through.found()
            batch = protect(tracking.uffd)
            tracking.armed.epoch += 1
            columns = batch.columns()
            lost = _written(columns) if written else columns
            kept = through.keep_found(native.overlay(before, lost, outside=True))
            through.rearmed(columns, None)
        with _delivering(through, before, None, kept=kept):
            yield through.before, batch


@contextlib.contextmanager
def _delivering(
    through: Opened, left: Columns, since: datetime | None, *, kept: bool
) -> Iterator[None]:
    """Move the baseline if the block ends without an exception."""
    try:
        yield
    except OSError as error:
        if kept:
            raise
        raise PagescanError(
            f"{error}; the pages of this look are lost: {where()} is full too"
        ) from error
    with contextlib.suppress(PagescanError):  # the target or the keeper has ended
        through.delivered(left, since)


def _written(columns: Columns) -> Columns:
    categories = set(columns.categories)
    return native.relabel(
        columns, {bits: bits for bits in categories if bits & Category.WRITTEN}
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay signals that end this process until a look's result is stored."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _directory(session: Session) -> Iterator[int]:
    directory = directory_of(session)
    try:
        yield directory
    finally:
        os.close(directory)
