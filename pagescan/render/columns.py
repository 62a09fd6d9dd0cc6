"""The columns, one entry per column: table, CSV, help and manual page use them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pagescan.model.errors import UsageError
from pagescan.model.memory import CATEGORY_NAMES, Region
from pagescan.model.results import Action, MappingCounts
from pagescan.model.units import escape, format_address, format_size

Value = int | str | bool | None


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: The name that -c takes and CSV prints.
        header: The heading in tables.
        unit: "pages", "bytes", "address", "flag" or "text".
        width: Characters in a pipe, where rows are printed before all are known.
        help: One line for the manual page.
    """

    key: str
    header: str
    unit: str
    width: int
    help: str

    @property
    def right(self) -> bool:
        """Whether cells are aligned to the right, as numbers are."""
        return self.unit in ("pages", "bytes")


_ADDRESS = 18  # 0x and up to 16 digits
_COUNT = 9

_START = Column("start", "start", "address", _ADDRESS, "First address.")
_END = Column("end", "end", "address", _ADDRESS, "Address behind the last byte.")
_PAGES = Column("pages", "pages", "pages", _COUNT, "Number of pages.")
_BYTES = Column("bytes", "bytes", "bytes", 10, "Length; exact with --bytes.")
_PERMS = Column("perms", "perms", "text", 5, "Permissions, as in /proc/PID/maps.")
_MAPPING = Column(
    "mapping", "mapping", "text", 32, "Name of the mapping; [anon] if it has none."
)
_NEW = Column("new", "new", "flag", 3, "The mapping appeared after arming.")

REGION_COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        _START,
        _END,
        _PAGES,
        _BYTES,
        *(
            Column(name, name, "flag", len(name), f"Whether the pages are {name}.")
            for _, name in CATEGORY_NAMES
        ),
        Column("categories", "categories", "text", 30, "All categories, in one."),
        _PERMS,
        _NEW,
        _MAPPING,
    )
}
REGION_DEFAULT = [
    "start",
    "end",
    "pages",
    "written",
    "file",
    "present",
    "swapped",
    "mapping",
]

PLAN_COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        _START,
        _END,
        _PAGES,
        _BYTES,
        Column("plan", "plan", "text", 4, "What to do: dump, zero or keep."),
        _PERMS,
        _MAPPING,
    )
}
PLAN_DEFAULT = ["start", "end", "pages", "plan", "mapping"]

MAPPING_COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        _START,
        _END,
        Column("size", "size", "bytes", 10, "Length; exact with --bytes."),
        _PAGES,
        _BYTES,
        *(
            Column(
                key,
                key,
                "pages",
                _COUNT,
                f"Pages that are {key}; - if that is unknown.",
            )
            for key in ("present", "swapped", "file", "pfnzero", "huge", "guard")
        ),
        Column(
            "written",
            "written",
            "pages",
            _COUNT,
            "Pages written since arming; - if the mapping is not tracked.",
        ),
        _PERMS,
        Column("offset", "offset", "address", 12, "Offset in the file."),
        Column("inode", "inode", "text", 10, "Inode of the file."),
        _NEW,
        _MAPPING,
    )
}
MAPS_DEFAULT = [
    "start",
    "size",
    "present",
    "swapped",
    "file",
    "pfnzero",
    "huge",
    "guard",
    "written",
    "mapping",
]
BY_MAPPING_DEFAULT = [
    "start",
    "size",
    "pages",
    "written",
    "file",
    "present",
    "swapped",
    "mapping",
]


def select(
    text: str | None, default: Sequence[str], columns: Mapping[str, Column]
) -> list[Column]:
    """Return the columns that -c names: "a,b" only these, "+a,b" adds to the default.

    Raises:
        UsageError: A column does not exist.
    """
    keys = list(default)
    if text is not None:
        words = [word.strip() for word in text.removeprefix("+").split(",")]
        keys = [*keys, *words] if text.startswith("+") else words
    for key in keys:
        if key not in columns:
            raise UsageError(
                f"unknown column: {key!r}", hint=f"there are: {' '.join(columns)}"
            )
    return [columns[key] for key in keys]


def region_value(region: Region, key: str) -> Value:
    """Return the value of a column for a region, with the types of JSON."""
    return _REGION[key](region)


def mapping_value(row: MappingCounts, key: str) -> Value:
    """Return the value of a column for a mapping, with the types of JSON."""
    getter = _MAPPINGS.get(key)
    return getter(row) if getter else row.counts.get(key)


def _flag(name: str) -> Callable[[Region], Value]:
    bit = next(bit for bit, known in CATEGORY_NAMES if known == name)
    return lambda region: bool(region.categories & bit)


_REGION: dict[str, Callable[[Region], Value]] = {
    "start": lambda region: region.start,
    "end": lambda region: region.end,
    "pages": lambda region: region.pages,
    "bytes": lambda region: region.bytes,
    "categories": lambda region: ",".join(region.categories.names),
    "plan": lambda region: Action(int(region.categories)).word,
    "perms": lambda region: region.mapping.perms if region.mapping else None,
    "new": lambda region: region.new,
    "mapping": lambda region: region.mapping.label if region.mapping else "[gone]",
    **{name: _flag(name) for _, name in CATEGORY_NAMES},
}
_MAPPINGS: dict[str, Callable[[MappingCounts], Value]] = {
    "start": lambda row: row.mapping.start,
    "end": lambda row: row.mapping.end,
    "size": lambda row: row.mapping.length,
    "bytes": lambda row: row.bytes,
    "pages": lambda row: row.pages,
    "perms": lambda row: row.mapping.perms,
    "offset": lambda row: row.mapping.offset,
    "inode": lambda row: str(row.mapping.inode),
    "new": lambda row: row.new,
    "mapping": lambda row: row.mapping.label,
}


def show(value: Value, column: Column, *, exact: bool) -> str:
    """Return a value as text for people: "-" stands for unknown and for false."""
    if value is None:
        return "-"
    if column.unit == "flag":
        return column.key if value else "-"
    if column.unit == "address":
        return format_address(int(value))
    if column.unit == "bytes":
        return str(value) if exact else format_size(int(value))
    return escape(str(value)) if column.unit == "text" else str(value)
