"""The columns: one row per column, with its getter; all formats are made of these rows.

To add a column, add its row here: tables, CSV, -c and JSON are made from it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from pagescan.model import memory
from pagescan.model.batch import Batch
from pagescan.model.errors import UsageError
from pagescan.model.memory import CATEGORY_NAMES, PAGE_COUNTED, Category
from pagescan.model.report import Report
from pagescan.model.results import SHARES, Action, MappingCounts
from pagescan.model.units import escape, format_address, format_size, format_time

if TYPE_CHECKING:
    from pagescan.model.groups import ProcessFacts

Value = int | str | bool | tuple[str, ...] | None
Unit = Literal["pages", "bytes", "address", "offset", "flag", "names", "text", "number"]


class RegionRow(NamedTuple):
    """The facts of one region; `bits` are categories, or the action of a plan.

    One row stands for all regions that differ in their addresses alone, and its `start`
    is 0 then; in JSON it stands for all lengths, too. So only the columns of addresses
    and lengths may read `start`, `end` and `pages`: the others read bits and mapping.
    """

    start: int
    end: int
    pages: int
    bits: int
    mapping: memory.Mapping | None
    """None: the mapping was unmapped during the look."""
    new: bool
    label: str | None = None
    """The purpose of the memory; None: no rule knows it."""

    @property
    def bytes(self) -> int:
        """Length in bytes."""
        return self.end - self.start


Row = RegionRow | MappingCounts
_Row_contra = TypeVar("_Row_contra", contravariant=True)


class Column(NamedTuple, Generic[_Row_contra]):
    """A column: of a table, of CSV, and a key of JSON.

    Attributes:
        key: The name that -c takes, that heads a table, and that CSV prints.
        unit: How a value is shown, and its type in JSON.
        width: Characters in a pipe, where rows are printed before all are known.
        value: The getter. Except in `start` and `end`, it may not depend on addresses.
        json: The key in JSON, "counts.present" in an object of its own; "": not there.
        unknown: The text where the value is None; "": a dash, and nothing in CSV.
    """

    key: str
    unit: Unit
    width: int
    value: Callable[[_Row_contra], Value]
    json: str = ""
    unknown: str = ""

    @property
    def right(self) -> bool:
        """Whether cells are aligned to the right, as numbers are."""
        return self.unit in ("pages", "bytes")


_ADDRESS = 18  # 0x and up to 16 digits
_COUNT = 9

_START: Column[Row] = Column(
    "start", "address", _ADDRESS, lambda row: row.start, "start"
)
_END: Column[Row] = Column(
    "end",
    "address",
    _ADDRESS,
    lambda row: row.end,
    "end",
)
_PAGES: Column[Row] = Column("pages", "pages", _COUNT, lambda row: row.pages, "pages")
_BYTES: Column[Row] = Column(
    "bytes",
    "bytes",
    10,
    lambda row: row.bytes,
    "bytes",
)
_MAPPING: Column[Row] = Column(
    "mapping",
    "text",
    32,
    lambda row: row.mapping.label if row.mapping else None,
    "mapping",
    "[gone]",
)
_LABEL: Column[Row] = Column(
    "label",
    "text",
    22,
    lambda row: row.label,
    "label",
)
_PERMS: Column[Row] = Column(
    "perms",
    "text",
    5,
    lambda row: row.mapping.perms if row.mapping else None,
    "perms",
)
_NEW: Column[Row] = Column("new", "flag", 3, lambda row: row.new, "new")


def _flag(bit: Category, name: str) -> Column[RegionRow]:
    """Return the column that says whether the pages of a region have a category."""
    mask = int(bit)
    return Column(
        name,
        "flag",
        len(name),
        lambda row: bool(row.bits & mask),
    )


def _count(name: str) -> Column[MappingCounts]:
    """Return the column with a mapping's number of pages that have a category."""
    return Column(
        name,
        "pages",
        _COUNT,
        lambda row: row.counts.get(name),
        f"counts.{name}",
    )


_REGION: list[Column[RegionRow]] = [
    _START,
    _END,
    _PAGES,
    _BYTES,
    *(_flag(bit, name) for bit, name in CATEGORY_NAMES),
    Column(
        "categories",
        "names",
        30,
        lambda row: Category(row.bits).names,
        "categories",
    ),
    _MAPPING,
    _LABEL,
    _PERMS,
    _NEW,
]
REGION_COLUMNS = {column.key: column for column in _REGION}
REGION_DEFAULT = "start,end,pages,written,file,present,swapped,mapping"

_PLAN: list[Column[RegionRow]] = [
    _START,
    _END,
    _PAGES,
    _BYTES,
    Column(
        "plan",
        "text",
        4,
        lambda row: Action(row.bits).word,
        "plan",
    ),
    _MAPPING,
    _LABEL,
    _PERMS,
]
PLAN_COLUMNS = {column.key: column for column in _PLAN}
PLAN_KEYS: list[Column[RegionRow]] = [
    *_PLAN,
    Column("categories", "names", 0, lambda _: None, "categories"),
    Column("new", "flag", 0, lambda _: None, "new"),
]
"""Every region has these keys; a plan has an action in place of categories."""
PLAN_DEFAULT = "start,end,pages,plan,mapping"

_OF_MAPPING: list[Column[MappingCounts]] = [
    _START,
    _END,
    Column(
        "size",
        "bytes",
        10,
        lambda row: row.mapping.length,
    ),
    _PAGES,
    _BYTES,
    _MAPPING,
    _LABEL,
    _PERMS,
    Column(
        "offset",
        "offset",
        12,
        lambda row: row.mapping.offset,
        "offset",
    ),
    Column(
        "inode",
        "number",
        10,
        lambda row: row.mapping.inode,
        "inode",
    ),
    *(_count(name) for name in PAGE_COUNTED),
    _NEW._replace(json=""),
]
MAPPING_COLUMNS = {column.key: column for column in _OF_MAPPING}

WATCHED_MAPPING_COLUMNS = {
    **MAPPING_COLUMNS,
    "growth": Column[MappingCounts](
        "growth", "bytes", 10, lambda row: row.growth, "growth"
    ),
}
"""Those of `watch --by mapping`, which knows what was present at its start."""
WATCHED_MAPPING_DEFAULT = (
    "start,size,pages,written,file,present,swapped,growth,label,mapping"
)


def _share(name: str) -> Column[MappingCounts]:
    """Return the column with a figure of smaps, which only `maps` has."""
    return Column(name, "bytes", 10, lambda row: row.shares.get(name), name)


MAPS_COLUMNS = {
    **MAPPING_COLUMNS,
    **{name: _share(name) for name in SHARES},
}
MAPS_DEFAULT = (
    "start,size,present,swapped,file,pfnzero,huge,guard,written,label,mapping"
)
MAPS_WITH_SHARES = "start,size,present,swapped,private,shared,pss,written,label,mapping"
BY_MAPPING_DEFAULT = "start,size,pages,written,file,present,swapped,mapping"


def _of_summary(name: str) -> "Column[ProcessFacts]":
    """Return the column with the number of pages of a process that have a category."""
    return Column(name, "pages", _COUNT, lambda row: row.summary.categories.get(name))


PID: Column[Any] = Column("pid", "number", 7, lambda _: None)
"""The process of a row; its value is that of the report: see `of_target`."""
_OF_PROCESS: "list[Column[ProcessFacts]]" = [
    Column("pid", "number", 7, lambda row: row.target.pid),
    Column("name", "text", 16, lambda row: row.target.name),
    Column("label", "text", 32, lambda row: row.label),
    Column("exe", "text", 32, lambda row: row.target.exe),
    Column("start_time", "number", 10, lambda row: row.target.start_time),
    Column("pages", "pages", _COUNT, lambda row: row.summary.pages),
    Column("bytes", "bytes", 10, lambda row: row.summary.bytes),
    *(_of_summary(name) for _, name in CATEGORY_NAMES),
    Column(
        "since_start", "bytes", 11, lambda row: row.totals.bytes if row.totals else None
    ),
    Column("end", "text", 6, lambda row: row.end),
]
PROCESS_COLUMNS = {column.key: column for column in _OF_PROCESS}
PROCESS_DEFAULTS = {
    "watch": "pid,name,pages,bytes,since_start,end,label",
    "maps": "pid,name,present,swapped,file,pfnzero,huge,guard,written,label",
    "scan": "pid,name,pages,bytes,written,file,present,swapped,label",
    "diff": "pid,name,pages,bytes,written,file,present,swapped,end,label",
}
OF_GROUPS = frozenset(PROCESS_DEFAULTS)
"""The commands that take groups."""


def of_target(report: Report) -> dict[str, Column[Any]]:
    """Return the column `PID` with the value of a report."""
    pid = report.target.pid if report.target else None
    return {"pid": PID._replace(value=lambda _: pid)}


_OF_LOOK: list[Column[Any]] = [
    Column("tick", "number", 6, lambda _: None),
    Column("time", "text", 27, lambda _: None),
]
LOOK_COLUMNS = {column.key: column for column in _OF_LOOK}
"""The columns that are the same in all rows of a look of `watch`: see `of_look`."""


def of_look(report: Report) -> dict[str, Column[Any]]:
    """Return the columns of `LOOK_COLUMNS` with the values of one look."""
    when = format_time(report.time)
    return {
        "tick": LOOK_COLUMNS["tick"]._replace(value=lambda _: report.tick),
        "time": LOOK_COLUMNS["time"]._replace(value=lambda _: when),
    }


def sort_keys(
    text: str | None, columns: Mapping[str, Column[_Row_contra]]
) -> list[tuple[Column[_Row_contra], bool]]:
    """Return the columns that --sort names, each with whether the largest is first.

    Raises:
        UsageError: A column does not exist.
    """
    if text is None:
        return []
    words = [word.strip() for word in text.split(",")]
    names = ",".join(word.lstrip("+-") for word in words)
    found = select(names, "", columns)
    return [
        (column, word.startswith("-"))
        for column, word in zip(found, words, strict=True)
    ]


def select(
    text: str | None, default: str, columns: Mapping[str, Column[_Row_contra]]
) -> list[Column[_Row_contra]]:
    """Return the columns that -c names: "a,b" only these, "+a,b" adds to the default.

    A column that is named twice, or is in the default, is shown once.

    Raises:
        UsageError: A column does not exist.
    """
    if text is None:
        text = default
    elif text.startswith("+"):
        text = f"{default},{text[1:]}"
    keys = dict.fromkeys(word.strip() for word in text.split(","))
    for key in keys:
        if key not in columns:
            from pagescan.render.unknown_columns import hint_for

            raise UsageError(f"unknown column: {key!r}", hint=hint_for(key, columns))
    return [columns[key] for key in keys]


def region_rows(batch: Batch, *, by_page: bool = False) -> Iterator[RegionRow]:
    """Yield the rows of a batch, lazily: the reader may stop after the first."""
    size = batch.page_size
    for start, end, bits, owner in zip(
        batch.starts, batch.ends, batch.bits, batch.owners, strict=True
    ):
        of_mapping = facts_of_mapping(batch, owner)
        if not by_page:
            yield RegionRow(start, end, (end - start) // size, bits, *of_mapping)
            continue
        for page in range(start, end, size):
            yield RegionRow(page, page + size, 1, bits, *of_mapping)


def facts_of_mapping(
    batch: Batch, owner: int
) -> tuple[memory.Mapping | None, bool, str | None]:
    """Return the last fields of a `RegionRow`: mapping, new, label.

    There is no mapping if it was unmapped during the look.
    """
    mapping = batch.mappings[owner] if owner >= 0 else None
    return mapping, owner in batch.new, batch.label_of(owner)


def show(value: Value, column: Column[Any], *, exact: bool) -> str:
    """Return a value as text for people: "-" stands for unknown and for false."""
    match value:
        case None:
            text = column.unknown or "-"
        case bool():
            text = column.key if value else "-"
        case tuple():
            text = ",".join(value)
        case str():
            text = escape(value)
        case _ if column.unit in ("address", "offset"):
            text = format_address(value)
        case _ if column.unit == "bytes" and not exact:
            text = format_size(value)
        case _:
            text = str(value)
    return text


def json_value(value: Value, column: Column[Any]) -> object:
    """Return a value with its type in JSON: addresses are texts, offsets are not."""
    if isinstance(value, int) and column.unit == "address":
        return format_address(value)
    return value
