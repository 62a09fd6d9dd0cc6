"""Sessions from a command's side: start one, look through it, end it."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from pagescan.model.errors import (
    NoSuchTargetError,
    PagescanError,
    SessionLostError,
    TargetError,
)
from pagescan.model.ranges import ranges_of, union, unlabelled
from pagescan.model.results import Cost
from pagescan.native import Columns, Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session import pending
from pagescan.session.client import Client, Place, reporting_loss
from pagescan.session.epochs import Epochs
from pagescan.session.locks import Lock
from pagescan.session.record import Membership, Session, session_of
from pagescan.session.resume import resume
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
    joining: "Joining | None" = None,
) -> Tracking:
    """Arm a target and hand it over to a keeper; undo everything on an error.

    Args:
        target: The process.
        selection: The mappings to track.
        max_tables: Bytes of page tables that holes of shared memory may cost.
        pace: How long one call may hold the target's mmap lock.
        joining: The group that it joins; None: it is tracked by itself.

    Returns:
        The armed state, and the cost; the userfaultfd now belongs to the keeper.
    """
    from pagescan.console.interrupts import one_step

    with contextlib.ExitStack() as undo:
        lock = Lock.taken(target.pid, undo)
        tracking = Tracking.start(target, selection, max_tables=max_tables, pace=pace)
        undo.callback(tracking.close)
        _store_huge(lock.directory, target.pid, tracking.armed.huge)
        with one_step():  # either a keeper has it, or this process
            _hand_over(tracking, lock, joining)
            undo.pop_all()
    lock.close()
    tracking.hand_over()
    return tracking


def _hand_over(tracking: Tracking, lock: Lock, joining: "Joining | None") -> None:
    """Hand a tracking over to a new keeper, or to that of its group."""
    from pagescan.session import spawn as keeper

    target = tracking.target
    fds = tracking.uffd, target.pidfd, target.pagemap
    session = session_of(tracking, "keeper")
    if joining is None:
        keeper.start(session, lock, *fds)
        return
    session = replace(session, group=joining.group, late=joining.late)
    while joining.sessions:
        try:
            session = keeper.join(session, lock, *fds, joining.sessions[-1])
            break
        except NoSuchTargetError:
            joining.sessions.pop()  # that member has ended
        except SessionLostError:
            joining.lost.append(joining.sessions.pop())
    else:
        session = keeper.start(session, lock, *fds)
    joining.sessions.append(session)


@dataclass(slots=True)
class Joining:
    """The group that a process joins, and the keeper of its sessions.

    Attributes:
        group: The group.
        late: Whether the group was armed before.
        sessions: The sessions of its members: their keeper takes one more. Each
            session that joins is added.
        lost: The sessions whose keeper has died since.
    """

    group: Membership
    late: bool = False
    sessions: list[Session] = field(default_factory=list)
    lost: list[Session] = field(default_factory=list)


def end(
    session: Session,
    *,
    restore_huge: bool = True,
    pace: Pace | None = None,
) -> tuple[Cost, Restored]:
    """Disarm, and put back the huge pages that tracking has split.

    Args:
        session: The session.
        restore_huge: False: only count them.
        pace: How the target's mmap lock is spared.

    Returns:
        The cost to the target, and the result for its huge pages. A Ctrl-C in that time
        is part of the result, and is not raised.
    """
    from pagescan.session import spawn as keeper

    pace = pace or Pace()
    with reporting_loss(session):
        with Place(session) as place:
            units = pending.load_huge(place.directory, session.target.pid)
        cost = keeper.end(session, pace.max_stall_ns)
    restored = Restored()
    with (
        contextlib.suppress(PagescanError),  # the target has ended
        Target.open(session.target.pid, start_time=session.target.start_time) as target,
    ):
        rows = read(target)
        added = max(0, count_alike(rows) - session.alike)
        cost = replace(cost, mappings_added=added)
        if units is not None:
            scanner = Scanner(target, pace)
            restored = HugePages(units).restore(
                scanner, rows, only_count=not restore_huge
            )
            cost += scanner.take_cost()
    if units is not None:
        cost += restored.cost
    return cost, restored


def end_each(
    sessions: Iterable[Session],
    *,
    restore_huge: bool = True,
    pace: Pace | None = None,
) -> Iterator[tuple[Session, Cost, Restored]]:
    """End sessions like `end`, one by one; yield each with its results.

    Of a group, a process that has just ended is left out. After a Ctrl-C, which is part
    of the results, no more huge pages are put back.

    Raises:
        TargetError: The target of a session that is of no group has ended.
    """
    caught = False
    for session in sessions:
        try:
            restores = restore_huge and not caught
            cost, restored = end(session, restore_huge=restores, pace=pace)
        except TargetError:
            if session.group is None:
                raise
            continue
        caught |= restored.caught
        yield session, cost, restored


def _store_huge(directory: int, pid: int, huge: HugePages) -> None:
    """Store which memory was in huge pages; with a full disk it is unknown."""
    with contextlib.suppress(OSError):
        pending.store_huge(directory, pid, huge.units)


class OpenSession:
    """An open session, with a duplicate of its userfaultfd, for looks.

    Attributes:
        before: Its facts, as they were when it was opened.
        target: Its process.
        tracking: The tracking that looks.
    """

    def __init__(
        self, client: Client, place: Place, target: Target, pace: Pace | None
    ) -> None:
        """Take over an open client; only `open_session` calls this."""
        self.before = before = client.session
        self.target = target
        self._place = place
        self.tracking = resume(before, Scanner(target, pace), client.uffd, pace)
        self._client = client

    def epochs(self) -> Epochs:
        """Return its epochs, with the pages that the acknowledged image may lack."""
        before, unsaved = self.before, None
        if before.acknowledged >= 0:
            directory = self._place.check()
            unsaved = pending.load(directory, self.target.pid, before.epoch)
        return Epochs(before.epoch, before.planned, before.acknowledged, unsaved)

    def with_ends(self, written: Columns) -> Columns:
        """Add the growing ends to the pages that an image may lack.

        They are compared. An image made after a look may contain bytes that no look has
        seen, although the next look finds earlier changes.
        """
        ends = ranges_of((end["start"], end["end"]) for end in self.before.ends)
        return union(written, unlabelled(ends)) if self.before.ends else written

    def commit_unchanged(self) -> None:
        """Give back the right to rearm: nothing was protected."""
        self._client.commit()

    def undelivered(self) -> Columns:
        """Return the results of looks that rearmed and were not delivered."""
        return pending.load_found(self._place.check(), self.target.pid)[1]

    def store_undelivered(self, regions: Columns) -> bool:
        """Store the result of a look until it is delivered; False: the disk is full."""
        pid, epoch = self.target.pid, self.tracking.armed.epoch
        directory = self._place.check()
        try:
            pending.store_found(directory, pid, epoch, regions)
        except OSError:
            return False
        return True

    def commit_rearm(self, protected: Columns, since: datetime | None) -> None:
        """Commit the facts after pages were re-protected: an image may lack them.

        No other command may rearm until `move_baseline`: it would find the same pages.
        """
        epochs = self.epochs().rearmed(self.tracking.armed.epoch, protected)
        self.commit(epochs, since, hold=True)

    def move_baseline(self, left: Columns, since: datetime | None) -> None:
        """Commit the new baseline: the result of the look has arrived.

        Args:
            left: Pages that still have to be delivered.
            since: The new baseline.
        """
        if self.store_undelivered(left):
            self._client.session = replace(self._client.session, since=since)
        self._client.commit()

    def commit(
        self, epochs: Epochs, since: datetime | None, *, hold: bool = False
    ) -> bool:
        """Store the unsaved pages, then let the keeper take over the facts.

        Args:
            epochs: The new epochs.
            since: The baseline.
            hold: Keep the right to rearm, for another commit.

        Returns:
            False if the pages could not be stored: the next plan will be complete.
        """
        stored = True
        directory = self._place.check()
        if epochs.unsaved is not None:
            try:
                pending.store(directory, self.target.pid, epochs.epoch, epochs.unsaved)
            except OSError:
                stored, epochs = False, epochs.forgotten()
        self._store_huge(directory)
        self._client.session = replace(
            self.before.after(self.tracking.armed, since),
            planned=epochs.planned,
            acknowledged=epochs.acknowledged,
        )
        self._client.commit(hold=hold)
        return stored

    def _store_huge(self, directory: int) -> None:
        """Add the memory that this look has found in huge pages to the stored list."""
        huge = self.tracking.armed.huge
        if huge.units.starts:
            units = pending.load_huge(directory, self.target.pid)
            if units is not None:
                huge.learn(units)
                _store_huge(directory, self.target.pid, huge)


@contextlib.contextmanager
def open_session(
    session: Session, *, rearm: bool = False, pace: Pace | None = None
) -> Iterator[OpenSession]:
    """Open a session; with `rearm` no other command may rearm it in the block.

    Raises:
        SessionError: The session has ended, or does not answer.
        TargetError: The target has ended, or runs another program.
    """
    facts = session.target
    with (
        reporting_loss(session),
        Target.open(facts.pid, start_time=facts.start_time) as target,
        Place(session) as place,  # before the client: it is of the same session
        Client(session) as client,
    ):
        if rearm:
            client.begin()
        else:
            client.open()
        if not client.alive:
            client.end()
            raise target.gone()
        yield OpenSession(client, place, target, pace)
