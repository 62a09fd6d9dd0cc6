"""The file that a recorder writes: one transaction per look, so that a kill loses none.

After a look is committed, SIGKILL cannot take it away: the kernel has it. A crash of
the machine may take the looks of the last seconds, and leaves a valid file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagescan import native
from pagescan.model.errors import PagescanError
from pagescan.recording import schema
from pagescan.recording.creation import create
from pagescan.recording.lifetimes import LEVEL, Lifetimes, Rows
from pagescan.recording.records import BILLION, RecordingFacts, nanoseconds
from pagescan.recording.writer_rows import WriterRows

if TYPE_CHECKING:
    from datetime import datetime

    from pagescan.attribution.look_writers import LookWriters
    from pagescan.model.looks import Look
    from pagescan.model.results import TargetFacts

_PAGES_PER_CHECKPOINT = 256
_RING_STEP = 16  # a ring drops one in this number of its looks at a time
_LONGER = 1 + 1 / _RING_STEP


@dataclass(frozen=True, slots=True)
class Ring:
    """The limits of a flight recorder; None: no such limit.

    Attributes:
        seconds: Looks that are older are dropped.
        bytes: The size of the file from which the oldest looks are dropped.
    """

    seconds: float | None = None
    bytes: int | None = None


class OutputFile:
    """A recording that grows.

    Attributes:
        path: Its path.
        looks: How many looks have been committed.
    """

    def __init__(
        self,
        path: str,
        facts: RecordingFacts,
        *,
        overwrite: bool = False,
        ring: Ring | None = None,
    ) -> None:
        """Create the file, readable by its owner only.

        Raises:
            PagescanError: It exists, or cannot be created.
        """
        self.path = path
        self.looks = 0
        self._ring = ring or Ring()
        self._processes: dict[int, Lifetimes] = {}
        self._writers: dict[int, WriterRows] = {}
        self._open = False  # whether a transaction is open for several looks
        # Its lock goes when this process ends.
        self._mark, self._replaced = create(path, overwrite=overwrite)
        with _explained(path):
            self._file = sqlite3.connect(path, isolation_level=None)
            self._rows = Rows(self._file)
            self._prepare(facts)

    def _prepare(self, facts: RecordingFacts) -> None:
        run = self._file.execute
        if self._ring.bytes or self._ring.seconds:
            run("PRAGMA secure_delete = ON")  # dropped looks cannot be recovered
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA wal_autocheckpoint = {_PAGES_PER_CHECKPOINT}")
        run("BEGIN IMMEDIATE")
        for statement in schema.statements():
            run(statement)
        rows = {
            "version": facts.version,
            "kernel": facts.kernel,
            "host": facts.host,
            "begun": nanoseconds(facts.begun),
            "interval": facts.interval,
            "budget": facts.budget,
            "options": dict(facts.options),
            "rotated_from": facts.rotated_from,
            "who": facts.who,
            "group": facts.group,
        }
        for name, value in rows.items():
            self._rows.insert("facts", name, json.dumps(value))
        run("COMMIT")

    def add_process(self, key: int, target: TargetFacts, facts: dict[str, Any]) -> None:
        """Begin a program: a target, or the next one after an exec.

        Args:
            key: The caller's number of it.
            target: The process.
            facts: `armed_at` (a datetime), `tracked_bytes`, `stopped_ns`.
        """
        with _explained(self.path), self._transaction():
            row = self._insert_process(
                target,
                facts["armed_at"],
                facts["tracked_bytes"],
                facts["stopped_ns"],
            )
        self._processes[key] = Lifetimes(self._rows, row)

    def add_untracked(self, target: TargetFacts, now: datetime, why: str) -> None:
        """Add a process that is not tracked, with the reason."""
        look = self._rows.next["looks"]
        with _explained(self.path), self._transaction():
            row = self._insert_process(target, now, 0, 0)
            self._rows.insert("untracked", row, 0, 0, "", why, look, None)

    def _insert_process(
        self, target: TargetFacts, armed_at: datetime, tracked: int, stopped_ns: int
    ) -> int:
        return self._rows.insert(
            "processes",
            target.pid,
            target.start_time,
            schema.text(target.name),
            schema.text(target.exe),
            target.page_size,
            nanoseconds(armed_at),
            tracked,
            stopped_ns,
            self._rows.next["looks"],
            None,
            None,
        )

    def end_process(self, key: int, ending: str) -> None:
        """Write why the looks at a program ended."""
        process = self._processes.pop(key)
        last = self._rows.next["looks"] - 1
        with _explained(self.path), self._transaction():
            self._file.execute(
                "UPDATE processes SET last_look = ?, ending = ? WHERE id = ?",
                (last, ending, process.row),
            )
            process.end(last)

    def add(
        self,
        key: int,
        number: int,
        seconds: float,
        look: Look,
        *,
        resident: int | None = None,
        recorder_ns: int | None = None,
        writers: LookWriters | None = None,
    ) -> int:
        """Commit a look; return the size of its regions in the file, in bytes.

        Args:
            key: The number of its process.
            number: Its own number.
            seconds: The time since the previous look.
            look: The look; its batch may have labels.
            resident: Resident bytes of the process.
            recorder_ns: Processor time that storing the previous look took.
            writers: Who wrote its pages; None: not known.

        Raises:
            PagescanError: It could not be stored; all earlier looks are in the file.
        """
        process = self._processes[key]
        packed = zlib.compress(
            native.pack(look.batch.columns(), look.batch.page_size), LEVEL
        )
        now = self._rows.next["looks"]
        with _explained(self.path), self._transaction():
            process.follow(look, now)
            self._insert_look(
                process, number, seconds, look, packed, (resident, recorder_ns)
            )
            if writers is not None:
                self._add_writers(key, process, look, writers, now)
            self._drop_old(look)
        self.looks += 1
        self._drop_replaced()
        return len(packed)

    def _insert_look(
        self,
        process: Lifetimes,
        number: int,
        seconds: float,
        look: Look,
        packed: bytes,
        more: tuple[int | None, int | None],
    ) -> None:
        cost, about = look.cost, look.estimate
        counts, pages = process.counts(look.batch)
        self._rows.insert(
            "looks",
            process.row,
            number,
            nanoseconds(look.time),
            round(seconds * BILLION),
            pages,
            len(look.batch),
            more[0],
            cost.scan_ns,
            cost.max_wait_ns,
            cost.ioctls,
            cost.pages_walked,
            cost.mappings_added,
            _ppb(cost.target_share),
            cost.target_ns,
            cost.used_ns,
            cost.huge_restored,
            cost.huge_lost,
            *((about.pages, about.low, about.high) if about else (None,) * 3),
            _ppb(about.share if about else None),
            more[1],
            counts,
            packed,
        )

    def _add_writers(
        self, key: int, process: Lifetimes, look: Look, found: LookWriters, now: int
    ) -> None:
        rows = self._writers.setdefault(key, WriterRows(self._rows, process.row))
        rows.add(found, process.in_order, now, look.batch.page_size)

    def _drop_old(self, look: Look) -> None:
        """Drop the oldest looks of a ring, many at a time; the newest always stays."""
        ring, run = self._ring, self._file.execute
        if ring.seconds is None and ring.bytes is None:
            return
        query = "SELECT id, time FROM looks ORDER BY id LIMIT 1"
        first, begun = run(query).fetchone()
        newest = self._rows.next["looks"] - 1
        last = 0
        age = nanoseconds(look.time) - begun
        if ring.seconds is not None and age > ring.seconds * _LONGER * BILLION:
            oldest = nanoseconds(look.time) - round(ring.seconds * BILLION)
            query = "SELECT id FROM looks WHERE time >= ? ORDER BY id LIMIT 1"
            last = run(query, (oldest,)).fetchone()[0] - 1
        if ring.bytes is not None and self._used() > ring.bytes:
            last = max(last, first + (newest - first) // _RING_STEP)
        last = min(last, newest - 1)
        if last < first:
            return
        run("DELETE FROM looks WHERE id <= ?", (last,))
        run("DELETE FROM mappings WHERE last_look <= ?", (last,))
        run("DELETE FROM untracked WHERE last_look <= ?", (last,))
        run("DELETE FROM writers WHERE id <= ?", (last,))
        for rows in self._writers.values():
            rows.drop_unused(last)

    def _used(self) -> int:
        run = self._file.execute
        pages, free, size = (
            run(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    @contextlib.contextmanager
    def together(self) -> Any:  # noqa: ANN401 - an iterator without values
        """Commit all that is added within, as the looks of a tick, in one step."""
        with _explained(self.path), self._transaction():
            self._open = True
            try:
                yield
            finally:
                self._open = False

    @contextlib.contextmanager
    def _transaction(self) -> Any:  # noqa: ANN401 - as above
        if self._open:
            yield
            return
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            raise

    def discard(self) -> None:
        """Remove the file, and put the file it was to replace back in place."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        for aside, name in self._replaced:
            with contextlib.suppress(OSError):
                os.rename(aside, name)
        self._replaced = []

    def _drop_replaced(self) -> None:
        for aside, _ in self._replaced:
            with contextlib.suppress(OSError):
                os.unlink(aside)
        self._replaced = []

    def close(self, ending: str | None = None) -> None:
        """Write why the recording ended, and leave one file without a journal.

        On a full disk the ending may be missing: all committed looks are in the file.
        """
        with contextlib.suppress(sqlite3.Error, PagescanError):
            for key in list(self._processes):
                self.end_process(key, ending or "rotated")
            with self._transaction():
                self._rows.insert("facts", "ending", json.dumps(ending or "rotated"))
        with contextlib.suppress(sqlite3.Error):  # it is read: the journal stays
            self._file.execute("PRAGMA busy_timeout = 100")  # ms: the next file waits
            self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._file.execute("PRAGMA journal_mode = DELETE")
        self._file.close()
        if self._mark >= 0:
            os.close(self._mark)
        self._mark = -1


def _ppb(share: float | None) -> int | None:
    return None if share is None else round(share * BILLION)


@contextlib.contextmanager
def _explained(path: str) -> Any:  # noqa: ANN401 - an iterator without values
    """Turn an error of SQLite into one line that says what became of the file."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        reason = "the disk is full" if code == sqlite3.SQLITE_FULL else str(error)
        raise PagescanError(
            f"cannot write {path}: {reason}; the looks before are in it"
        ) from error
