"""Looks through a session whose results are stored until they have arrived."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.looks import Look
from pagescan.model.memory import Category
from pagescan.native import Columns, Pace
from pagescan.session.locks import preferred_directory
from pagescan.session.opened import OpenSession, open_session
from pagescan.session.record import Session


@contextlib.contextmanager
def look_until_delivered(
    session: Session, *, rearm: bool = False, pace: Pace | None = None
) -> Iterator[tuple[Session, Look]]:
    """Look through a session; yield its earlier facts, and the look.

    With `rearm` the baseline moves when the block ends without an exception. Until
    then the result is stored with the session, so a full disk, a closed pipe or a kill
    while it is written loses nothing: the next look finds it again. No other command
    can rearm the session in the block: it would find these pages, too.
    """
    stored = False
    with contextlib.ExitStack() as undo:
        opened = undo.enter_context(open_session(session, rearm=rearm, pace=pace))
        with _signals_blocked():
            undelivered = opened.undelivered()
            look = opened.tracking.look(rearm=rearm)
            if undelivered.starts:
                look = replace(look, batch=look.batch.above(undelivered))
            if rearm:
                columns = look.batch.columns()
                stored = opened.store_undelivered(columns)
                protected = opened.with_ends(columns)
                opened.commit_rearm(protected, opened.before.since if stored else None)
        if not rearm:
            undo.close()
            yield opened.before, look
            return
        since = opened.tracking.since
        with _delivery(opened, Columns.empty(), since, stored=stored):
            yield opened.before, look


def look_at(
    session: Session, *, rearm: bool = False, pace: Pace | None = None
) -> tuple[Session, Look]:
    """Look through a session; return its earlier facts, and the look, as delivered."""
    with look_until_delivered(session, rearm=rearm, pace=pace) as result:
        return result


@contextlib.contextmanager
def protect_until_delivered(
    session: Session, protect: Callable[[int], Batch], *, written: bool
) -> Iterator[tuple[Session, Batch]]:
    """Protect pages of a session; yield its earlier facts, and the protected pages.

    The written ones are stored with the session until the block ends without an
    exception, as in `look_until_delivered`. The session has no common baseline then.

    Args:
        session: The session.
        protect: Called with the userfaultfd; returns the pages that it has protected.
        written: Whether these have the category `written` where it applies; else all
            of them are taken for written.
    """
    with open_session(session, rearm=True) as opened:
        with _signals_blocked():
            tracking = opened.tracking
            undelivered = opened.undelivered()
            batch = protect(tracking.uffd)
            tracking.armed.epoch += 1
            columns = batch.columns()
            more = _written(columns) if written else columns
            stored = opened.store_undelivered(
                native.overlay(undelivered, more, outside=True)
            )
            opened.commit_rearm(columns, None)
        with _delivery(opened, undelivered, None, stored=stored):
            yield opened.before, batch


@contextlib.contextmanager
def _delivery(
    opened: OpenSession, left: Columns, since: datetime | None, *, stored: bool
) -> Iterator[None]:
    """Move the baseline if the block ends without an exception.

    Args:
        opened: The session.
        left: Pages that are still to be delivered then.
        since: The new baseline.
        stored: Whether the result is stored with the session until then.
    """
    try:
        yield
    except OSError as error:
        if stored:
            raise
        raise PagescanError(
            f"{error}; the pages of this look are lost:"
            f" {preferred_directory()} is full too",
            pid=opened.target.pid,
            call="write",
            errno=error.errno,
        ) from error
    with contextlib.suppress(PagescanError):  # the target or the keeper has ended
        opened.move_baseline(left, since)


def _written(columns: Columns) -> Columns:
    categories = set(columns.categories)
    return native.relabel(
        columns, {bits: bits for bits in categories if bits & Category.WRITTEN}
    )


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Delay signals that end this process until a look's result is stored."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
