"""Tracking that outlives the caller: start a session, look through it, end it."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from pagescan import keeper, pending
from pagescan.arm import MAX_TABLES, Armed
from pagescan.mappings import Selection
from pagescan.native import Columns, Pace
from pagescan.session import Lock, Session
from pagescan.session_client import Client, directory_of
from pagescan.target import Target
from pagescan.tracking import Look, Tracking, session_of


def start(
    target: Target,
    selection: Selection,
    *,
    max_tables: int = MAX_TABLES,
    pace: Pace | None = None,
) -> Tracking:
    """Arm a target and hand it to a keeper; undone again if that fails.

    Returns:
        What was armed, and what it cost; the userfaultfd is the keeper's by then.
    """
    lock = Lock.take(target.pid)
    try:
        tracking = Tracking.start(target, selection, max_tables=max_tables, pace=pace)
        try:
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


class Opened:
    """A session, opened to look through.

    Attributes:
        before: Its facts, as they were then.
        target: Its process.
        tracking: What looks.
    """

    def __init__(self, client: Client, target: Target, pace: Pace | None) -> None:
        """Take over an open client; use `opened`."""
        self.before = before = client.session
        self.target = target
        self.tracking = Tracking(
            target,
            client.uffd,
            Armed(
                Selection.parse(before.words),
                list(before.untracked),
                before.tracked_bytes,
                before.tables_left,
                before.epoch,
                before.alike,
            ),
            armed_at=before.armed_at,
            since=before.since,
            pace=pace,
        )
        self._client = client

    def pending(self) -> Columns | None:
        """Return what the consumer of checkpoints may lack; None: not known."""
        if self.before.acknowledged < 0:
            return None
        with _directory(self.before) as directory:
            return pending.load(directory, self.target.pid, self.before.epoch)

    def unchanged(self) -> None:
        """Keep the facts as they are: nothing was protected."""
        self._client.commit()

    def rearmed(self, protected: Columns, since: datetime | None) -> None:
        """Keep the facts after pages were protected anew; a consumer may lack them."""
        lacking = self.pending()
        if lacking is None:
            self.commit(since, None, -1)
        else:
            self.commit(
                since, pending.both(lacking, protected), self.before.acknowledged
            )

    def commit(
        self,
        since: datetime | None,
        lacking: Columns | None,
        acknowledged: int,
        planned: int | None = None,
    ) -> bool:
        """Keep the facts, and what the consumer may lack beside them.

        Returns:
            Whether that is so; else the next plan is complete: the disk is full.
        """
        kept = True
        pid, epoch = self.target.pid, self.tracking.armed.epoch
        if lacking is not None:
            with _directory(self.before) as directory:
                try:
                    pending.store(directory, pid, epoch, lacking)
                except OSError:
                    acknowledged, kept = -1, False
        self._client.session = replace(
            self.before.after(self.tracking.armed, since),
            planned=self.before.planned if planned is None else planned,
            acknowledged=acknowledged,
        )
        self._client.commit()
        return kept


@contextlib.contextmanager
def opened(
    found: Session, *, rearm: bool = False, pace: Pace | None = None
) -> Iterator[Opened]:
    """Open a session; with `rearm` nobody else may rearm it meanwhile.

    Raises:
        SessionError: It ended, or does not answer.
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


def look_at(
    found: Session, *, rearm: bool = False, pace: Pace | None = None
) -> tuple[Session, Look]:
    """Look through a session; return its facts as they were before the look."""
    with opened(found, rearm=rearm, pace=pace) as through:
        tracking = through.tracking
        look = tracking.look(rearm=rearm)
        if rearm:
            through.rearmed(look.batch.columns(), tracking.since)
    return through.before, look


@contextlib.contextmanager
def _directory(session: Session) -> Iterator[int]:
    directory = directory_of(session)
    try:
        yield directory
    finally:
        os.close(directory)
