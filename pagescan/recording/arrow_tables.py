"""The tables of a dataset as Arrow's: columns pass from the store without a copy.

Nothing here makes an object per region. Values that all rows of a look share are taken
from columns with one row per look.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pagescan.model.memory import Category
from pagescan.model.writers import KERNEL_OR_OTHER, LOST
from pagescan.recording.by_writer import code_of
from pagescan.recording.records import BILLION

if TYPE_CHECKING:
    from pagescan.recording.records import RecordedLook
    from pagescan.recording.store import Recording

_ROWS = 1 << 20
"""About this many rows are in memory at a time; they are a row group of a file."""

COMMON = (
    ("session", "string"),
    ("look", "int64"),
    ("time", "timestamp"),
    ("pid", "int64"),
    ("name", "string"),
    ("release", "string"),
)
"""The columns that every table begins with."""
COLUMNS = {
    "looks": (
        *COMMON,
        ("exe", "string"),
        ("interval_ns", "int64"),
        ("pages", "int64"),
        ("bytes", "int64"),
        ("regions", "int64"),
        ("estimated_bytes", "int64"),
        ("resident", "int64"),
        ("tracked_bytes", "int64"),
        ("page_size", "int64"),
        ("scan_ns", "int64"),
        ("max_wait_ns", "int64"),
        ("target_share", "double"),
        ("target_ns", "int64"),
        ("used_ns", "int64"),
        ("huge_restored", "int64"),
        ("huge_lost", "int64"),
        ("version", "string"),
        ("kernel", "string"),
    ),
    "mappings": (
        *COMMON,
        ("start", "int64"),
        ("end", "int64"),
        ("perms", "string"),
        ("mapping", "string"),
        ("label", "string"),
        ("new", "bool"),
        ("pages", "int64"),
        ("bytes", "int64"),
    ),
    "writers": (
        *COMMON,
        ("function", "string"),
        ("module", "string"),
        ("tid", "int64"),
        ("thread", "string"),
        ("mapping", "string"),
        ("label", "string"),
        ("pages", "int64"),
        ("bytes", "int64"),
    ),
    "regions": (
        *COMMON,
        ("start", "int64"),
        ("end", "int64"),
        ("pages", "int64"),
        ("bytes", "int64"),
        ("categories", "string"),
        ("mapping", "string"),
        ("label", "string"),
    ),
}
"""The columns of each table, and their types."""


def load() -> Any:  # noqa: ANN401 - it has no types
    """Return pyarrow, with its module for Parquet.

    Raises:
        PagescanError: It is not installed.
    """
    from importlib import import_module  # type checkers do not follow it

    try:
        for name in ("pyarrow.compute", "pyarrow.parquet"):  # attributes of pyarrow
            import_module(name)
        return import_module("pyarrow")
    except ImportError as missing:
        from pagescan.model.extras import lacking

        raise lacking("Parquet", "the package pyarrow", "parquet") from missing


def schema_of(pa: Any, table: str) -> Any:  # noqa: ANN401
    """Return the Arrow schema of a table."""
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
    }
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS[table]])


class Tables:
    """Makes the tables of looks of a recording.

    Args:
        recording: The recording.
        session_of: Returns the session of a process, by its index.
        release: The release of the program; None: the path of its executable.
    """

    def __init__(
        self,
        recording: Recording,
        session_of: Callable[[int], str],
        release: str | None,
    ) -> None:
        """Take the names of all mappings."""
        self.pa = load()
        self._recording = recording
        self._session_of = session_of
        self._release = release
        self._names = self._texts(row.mapping.label for row in recording.mappings)
        self._labels = self._texts(row.label for row in recording.mappings)

    def _texts(self, words: Iterator[str | None]) -> Any:  # noqa: ANN401
        """Return a column of text; bytes that are not UTF-8 are replaced."""
        return self.pa.array(map(_utf8, words), self.pa.string())

    def looks(self, looks: Sequence[RecordedLook]) -> Iterator[Any]:
        """Yield the table of looks, in one part."""
        facts = self._recording.facts
        rows = [self._recording.processes[look.process] for look in looks]
        sizes = [row.target.page_size for row in rows]
        pages = [look.pages for look in looks]
        costs = [look.cost for look in looks]
        more = {
            "exe": map(_utf8, (row.target.exe for row in rows)),
            "interval_ns": [look.interval_ns for look in looks],
            "pages": pages,
            "bytes": [count * size for count, size in zip(pages, sizes, strict=True)],
            "regions": [look.regions for look in looks],
            "estimated_bytes": [
                look.estimate.pages * size if look.estimate else None
                for look, size in zip(looks, sizes, strict=True)
            ],
            "resident": [look.resident for look in looks],
            "tracked_bytes": [row.tracked_bytes for row in rows],
            "page_size": sizes,
            "scan_ns": [cost.scan_ns for cost in costs],
            "max_wait_ns": [cost.max_wait_ns for cost in costs],
            "target_share": [cost.target_share for cost in costs],
            "target_ns": [cost.target_ns for cost in costs],
            "used_ns": [cost.used_ns for cost in costs],
            "huge_restored": [cost.huge_restored for cost in costs],
            "huge_lost": [cost.huge_lost for cost in costs],
            "version": [_utf8(facts.version)] * len(looks),
            "kernel": [_utf8(facts.kernel)] * len(looks),
        }
        yield self._table("looks", self._common(looks) | more)

    def mappings(self, looks: Sequence[RecordedLook]) -> Iterator[Any]:
        """Yield the written pages by look and mapping, some looks at a time."""
        all_rows = self._recording.mappings
        column = self.pa.array
        fixed = {
            "start": column([row.mapping.start for row in all_rows], self.pa.int64()),
            "end": column([row.mapping.end for row in all_rows], self.pa.int64()),
            "perms": column([row.mapping.perms for row in all_rows], self.pa.string()),
            "mapping": self._names,
            "label": self._labels,
            "new": column([row.new for row in all_rows], self.pa.bool_()),
        }
        for part in _parts(looks, lambda look: len(look.counts.pages)):
            owners, pages, rows = array("I"), array("I"), array("i")
            sizes = array("q")
            for at, look in enumerate(part):
                owners += look.counts.mappings
                pages += look.counts.pages
                rows += array("i", [at]) * len(look.counts.pages)
                size = self._recording.processes[look.process].target.page_size
                sizes += array("q", [size]) * len(look.counts.pages)
            counts = self.pa.array(pages, self.pa.int64())
            more = {
                name: values.take(self._buffer(owners, "uint32"))
                for name, values in fixed.items()
            } | {
                "pages": counts,
                "bytes": self.pa.compute.multiply(counts, self._buffer(sizes, "int64")),
            }
            yield self._table("mappings", self._of_looks(part, rows) | more)

    def writers(self, looks: Sequence[RecordedLook]) -> Iterator[Any]:
        """Yield the written pages by look, function, thread and mapping."""
        names: dict[str, list[Any]] = {name: [] for name, _ in COLUMNS["writers"][6:]}
        rows = array("i")
        recording = self._recording
        for at, look in enumerate(looks):
            size = recording.processes[look.process].target.page_size
            for one in _writers_of(recording, look):
                code, thread, mapping, pages = one
                rows.append(at)
                names["function"].append(_utf8(code[0]))
                names["module"].append(_utf8(code[1]))
                named = recording.threads[thread] if thread >= 0 else None
                names["tid"].append(named.tid if named else None)
                names["thread"].append(_utf8(named.name) if named else None)
                where = recording.mappings[mapping] if mapping >= 0 else None
                names["mapping"].append(_utf8(where.mapping.label) if where else None)
                names["label"].append(_utf8(where.label) if where else None)
                names["pages"].append(pages)
                names["bytes"].append(pages * size)
        yield self._table("writers", self._of_looks(looks, rows) | names)

    def regions(self, looks: Sequence[RecordedLook]) -> Iterator[Any]:
        """Yield the regions of written pages, some looks at a time."""
        for part in _parts(looks, lambda look: look.regions):
            yield self._regions(part)

    def _regions(self, looks: Sequence[RecordedLook]) -> Any:  # noqa: ANN401
        starts, ends, bits = array("Q"), array("Q"), array("Q")
        rows, owners, sizes = array("i"), [], array("q")
        known: tuple[object, Any] = (None, None)
        for at, look in enumerate(looks):
            batch = self._recording.batch(look)
            ids, _ = self._recording.mappings_at(look)
            if ids is not known[0]:
                known = ids, self.pa.array([*ids, None], self.pa.int32())
            starts += batch.starts
            ends += batch.ends
            bits += batch.bits
            rows += array("i", [at]) * len(batch)
            sizes += array("q", [batch.page_size]) * len(batch)
            owners.append(self._owners(batch.owners, known[1]))
        start, end = self._buffer(starts, "int64"), self._buffer(ends, "int64")
        length = self.pa.compute.subtract(end, start)
        mapping = self.pa.chunked_array(owners, self.pa.int32()).combine_chunks()
        more = {
            "start": start,
            "end": end,
            "pages": self.pa.compute.divide(length, self._buffer(sizes, "int64")),
            "bytes": length,
            "categories": self._categories(bits),
            "mapping": self._names.take(mapping),
            "label": self._labels.take(mapping),
        }
        return self._table("regions", self._of_looks(looks, rows) | more)

    def _owners(self, owners: array[int], ids: Any) -> Any:  # noqa: ANN401
        """Return indices of mappings of the recording; null where it is gone."""
        compute = self.pa.compute
        here = self._buffer(owners, "int64")
        last = len(ids) - 1  # the index of the null
        return ids.take(compute.if_else(compute.less(here, 0), last, here))

    def _categories(self, bits: array[int]) -> Any:  # noqa: ANN401
        """Return the names of the categories, separated by spaces."""
        coded = self._buffer(bits, "int64").dictionary_encode()
        names = [
            " ".join(Category(value).names) for value in coded.dictionary.to_pylist()
        ]
        return self.pa.array(names, self.pa.string()).take(coded.indices)

    def _buffer(self, column: array[int], kind: str) -> Any:  # noqa: ANN401
        """Return a column that shares the memory of an array."""
        buffers = [None, self.pa.py_buffer(column)]
        kind_of = getattr(self.pa, kind)()
        return self.pa.Array.from_buffers(kind_of, len(column), buffers)

    def _common(self, looks: Sequence[RecordedLook]) -> dict[str, Any]:
        """Return the columns of `COMMON`, with one row per look."""
        rows = [self._recording.processes[look.process] for look in looks]
        micro = [look.time_ns // (BILLION // 1_000_000) for look in looks]
        times = self.pa.array(micro, self.pa.int64())
        return {
            "session": [self._session_of(look.process) for look in looks],
            "look": [look.number for look in looks],
            "time": times.cast(self.pa.timestamp("us", "UTC")),
            "pid": [row.target.pid for row in rows],
            "name": list(map(_utf8, (row.target.name for row in rows))),
            "release": [_utf8(self._release or row.target.exe) for row in rows],
        }

    def _of_looks(
        self, looks: Sequence[RecordedLook], rows: array[int]
    ) -> dict[str, Any]:
        """Return the columns of `COMMON` for rows, of which each belongs to a look."""
        columns = self.pa.table(self._common(looks))
        taken = columns.take(self._buffer(rows, "int32"))
        return {name: taken.column(name) for name in taken.column_names}

    def _table(self, name: str, columns: dict[str, Any]) -> Any:  # noqa: ANN401
        schema = schema_of(self.pa, name)
        return self.pa.table(
            [
                columns[field.name].cast(field.type)
                if hasattr(columns[field.name], "cast")
                else self.pa.array(columns[field.name], field.type)
                for field in schema
            ],
            schema=schema,
        )


def _writers_of(
    recording: Recording, look: RecordedLook
) -> Iterator[tuple[tuple[str | None, str | None], int, int, int]]:
    """Yield code, thread, mapping and pages of the writers of a look.

    The last rows are those without a writer; a look without --who has none at all.
    """
    found = recording.writers_of(look)
    if found is None:
        return
    for one in found.counts:
        yield code_of(recording, one.function), one.thread, one.mapping, one.pages
    missing = max(0, look.pages - found.attributed)
    lost = min(found.lost, missing)
    for name, pages in ((KERNEL_OR_OTHER, missing - lost), (LOST, lost)):
        if pages:
            yield (name, None), -1, -1, pages


def _parts(
    looks: Sequence[RecordedLook], rows_of: Callable[[RecordedLook], int]
) -> Iterator[Sequence[RecordedLook]]:
    """Yield the looks, in parts with about `_ROWS` rows."""
    begun = rows = 0
    for at, look in enumerate(looks):
        rows += rows_of(look)
        if rows >= _ROWS:
            yield looks[begun : at + 1]
            begun, rows = at + 1, 0
    yield looks[begun:]


def _utf8(words: str | None) -> str | None:
    """Return text that Arrow takes: bytes that are not UTF-8 become U+FFFD."""
    return None if words is None else words.encode(errors="replace").decode()
