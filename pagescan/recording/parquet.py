"""Adds a recording to a dataset of Parquet files; each look at most once."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from pagescan.model.errors import file_error
from pagescan.recording.arrow_tables import Tables
from pagescan.recording.dataset import TABLES, VERSION, Dataset, Piece

if TYPE_CHECKING:
    from pagescan.recording.records import RecordedLook, RecordedProcess
    from pagescan.recording.store import Recording

_DELTA = ("start", "end", "look", "time")  # they ascend
_PLAIN = ("target_share",)


class Added(NamedTuple):
    """The looks and files that were added to a dataset.

    Attributes:
        looks: Looks that were not in it yet.
        regions: Their regions.
        files: The number of new files.
        bytes: Their size.
    """

    looks: int
    regions: int
    files: int
    bytes: int


def add_to_dataset(
    recording: Recording,
    folder: str,
    *,
    since_look: int = 0,
    release: str | None = None,
) -> Added:
    """Add the looks of a recording that a dataset does not have yet.

    Args:
        recording: The recording; its files are of one machine.
        folder: The dataset; it is made if it does not exist.
        since_look: Only looks with a later number.
        release: The release of the program; None: the path of its executable.

    Raises:
        PagescanError: pyarrow is not installed, or the folder is no dataset, or cannot
            be written. Then nothing was added.
        UsageError: The folder is a file.
    """
    sessions = [_session(row) for row in recording.processes]
    tables = Tables(recording, sessions.__getitem__, release)
    with Dataset(folder) as dataset:
        pieces = list(_pieces(recording, dataset, sessions, since_look))
        for piece, looks in pieces:
            for name in TABLES:
                _write(tables, name, looks, (dataset, piece))
        size = dataset.add([piece for piece, _ in pieces])
    new = [look for _, looks in pieces for look in looks]
    regions = sum(look.regions for look in new)
    return Added(len(new), regions, len(pieces) * len(TABLES), size)


def _session(row: RecordedProcess) -> str:
    """Return the name of a tracking session: on its machine there is no other such."""
    target = row.target
    return f"{target.pid}-{target.start_time}-{row.armed_at:%Y%m%dT%H%M%S.%fZ}"


def _pieces(
    recording: Recording, dataset: Dataset, sessions: Sequence[str], since: int
) -> Iterator[tuple[Piece, list[RecordedLook]]]:
    """Yield the new looks: of one session, of one day, without a gap of old ones."""
    host = recording.facts.host
    for session in dict.fromkeys(sessions):
        old = dataset.looks_of(host, session)
        looks = [
            look
            for look in recording.looks
            if sessions[look.process] == session and look.number > since
        ]
        for (date, at), group in groupby(looks, lambda look: _place(look, old)):  # noqa: B023 - used at once
            if at is None:
                continue
            new = list(group)
            piece = Piece(host, date, session, new[0].number, new[-1].number)
            yield piece, new


def _place(
    look: RecordedLook, old: Sequence[tuple[int, int]]
) -> tuple[str, int | None]:
    """Return the day of a look, and its place between old looks; None: it is old."""
    at = bisect_right(old, (look.number, look.number))
    near = old[max(0, at - 1) : at + 1]
    is_old = any(first <= look.number <= last for first, last in near)
    return f"{look.time:%Y-%m-%d}", None if is_old else at


def _write(
    tables: Tables,
    name: str,
    looks: Sequence[RecordedLook],
    place: tuple[Dataset, Piece],
) -> None:
    """Write a file of a table, with one row group per part."""
    dataset, piece = place
    try:
        with open(dataset.draft(piece, name), "wb") as file:
            writer: Any = None
            for part in getattr(tables, name)(looks):
                if writer is None:
                    writer = _writer(tables.pa, file, part.schema, name)
                writer.write_table(part, row_group_size=max(1, len(part)))
            writer.close()
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise file_error(error, f"write {dataset.folder}", call="write") from error


def _writer(pa: Any, file: Any, schema: Any, name: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    delta = [column for column in _DELTA if column in schema.names]
    coded = [one for one in schema.names if one not in (*delta, *_PLAIN)]
    writer = pa.parquet.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=coded,
        column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
        store_schema=False,  # else pandas gets types that other readers do not
    )
    writer.add_key_value_metadata({"pagescan.dataset": str(VERSION), "table": name})
    return writer
