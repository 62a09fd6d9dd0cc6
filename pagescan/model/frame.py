"""`Frame`: results as tables of scalars, for notebooks, pandas, polars and Arrow.

These libraries are imported where they are used, and need not be installed: so the
types of their objects are not named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from pagescan.model.errors import PagescanError
from pagescan.model.units import escape, format_address

_SHOWN = 10
"""The number of rows that a notebook shows."""


class Frame:
    """A result that is a table: each column has a name and one scalar per row."""

    __slots__ = ()

    def table(self) -> dict[str, Sequence[Any]]:
        """Return the columns by name: addresses and counts as integers."""
        raise NotImplementedError

    def rows(self) -> list[Any]:
        """Return one named tuple of scalars per row: `row.start`, `row.mapping`."""
        from collections import namedtuple

        columns = _plain(self.table())
        row = namedtuple("Row", columns)  # type: ignore[misc]
        return list(map(row._make, zip(*columns.values(), strict=True)))

    def to_arrow(self) -> Any:  # noqa: ANN401 - see above
        """Return the table as a pyarrow.Table.

        Raises:
            PagescanError: pyarrow is not installed.
        """
        return _library("pyarrow").table(_plain(self.table()))

    def to_pandas(self) -> Any:  # noqa: ANN401 - see above
        """Return the table as a pandas.DataFrame.

        Raises:
            PagescanError: pandas is not installed.
        """
        return _library("pandas").DataFrame(_plain(self.table()))

    def to_polars(self) -> Any:  # noqa: ANN401 - see above
        """Return the table as a polars.DataFrame.

        Raises:
            PagescanError: polars is not installed.
        """
        return _library("polars").DataFrame(_plain(self.table()))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Pass the table to any library with Arrow's PyCapsule interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        """Return the head of the table, for a notebook."""
        from html import escape as quote

        columns = self.table()
        count = len(next(iter(columns.values()), ()))
        head = "".join(f"<th>{name}</th>" for name in columns)
        rows = islice(zip(*columns.values(), strict=True), _SHOWN)
        body = "".join(f"<tr>{''.join(map(_cell, columns, row))}</tr>" for row in rows)
        more = f"<p>… and {count - _SHOWN:,} more rows</p>" if count > _SHOWN else ""
        return (
            f"<p>{quote(repr(self))}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
        )


def _cell(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"<td>{'yes' if value else ''}</td>"
    if isinstance(value, int):
        text = format_address(value) if name in ("start", "end") else f"{value:,}"
        return f'<td style="text-align:right">{text}</td>'
    from html import escape as quote

    return f"<td>{quote(escape(str(value))) if value is not None else ''}</td>"


def _plain(columns: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return columns that every library accepts: arrays of Python become lists."""
    return {
        name: column.tolist() if hasattr(column, "tolist") else column
        for name, column in columns.items()
    }


def _library(name: str) -> Any:  # noqa: ANN401 - a module without types
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as missing:
        from pagescan.model.extras import pip

        raise PagescanError(
            f"{name} is not installed", hint=f"{pip()} install {name}"
        ) from missing
