"""Writes the page: one file that holds its styles, scripts, licence and data."""

from __future__ import annotations

import contextlib
import html
import os
import re
import stat
from base64 import b64encode
from typing import TYPE_CHECKING

from pagescan.model.errors import PagescanError, file_error
from pagescan.render.html.frames import payload
from pagescan.render.whole_file import write_whole

if TYPE_CHECKING:
    from pagescan.render.html.records import PageContents

CAP = 20_000_000
"""The most bytes of a page; beyond them its map is coarser, and the page says so."""

_HEAD = b"<!doctype html>"
_HERE = os.path.dirname(__file__)
_SCRIPTS = (
    *("format", "colour", "decode", "layout", "model", "raster", "hover", "view"),
    *("cursor", "addresses", "map", "keys", "lines", "tables", "main"),
)
_MODULE_WORDS = re.compile(r"^import .*;\n|^export (?=\w)", re.MULTILINE)


def page(contents: PageContents, cap: int = CAP) -> str:
    """Return the page as HTML.

    Args:
        contents: What it shows.
        cap: The most bytes that it may have.
    """
    frame = _text("page.html")
    parts = {
        "title": html.escape(_title(contents)),
        "style": _text("vendor/uPlot.min.css") + _text("page.css"),
        "licence": _text("vendor/uPlot-LICENSE"),
        "uplot": _text("vendor/uPlot.iife.min.js"),
        "script": "".join(_script(name) for name in _SCRIPTS),
    }
    around = len(frame) + sum(len(part.encode()) for part in parts.values())
    data, _ = payload(contents, (cap - around) // 4 * 3)
    parts["data"] = b64encode(data).decode()
    pieces = re.split(r"\{\{(\w+)\}\}", frame)
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def write_page(contents: PageContents, path: str, cap: int = CAP) -> int:
    """Write the page to a file, which is complete at any time; return its bytes.

    Only its owner may read it, as with a recording. An existing page is overwritten;
    any other file is not.

    Args:
        contents: What it shows.
        path: The file.
        cap: The most bytes that it may have.

    Raises:
        PagescanError: The file cannot be written, or is no page.
    """
    try:
        _refuse_others(path)
        data = page(contents, cap).encode()
        write_whole(path, data, 0o600)
    except OSError as error:
        raise file_error(error, f"write {path}", call="write") from error
    return len(data)


def _refuse_others(path: str) -> None:
    """Raise if there is a file that this page must not replace."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PagescanError(f"{path} is not a regular file")
        if (head := file.read(len(_HEAD))) and head != _HEAD:
            raise PagescanError(
                f"{path} exists, and is no page", hint="name another file, or remove it"
            )


def _title(contents: PageContents) -> str:
    names = [f"{one.name} ({one.pid})" for one in contents.processes[:3]]
    more = len(contents.processes) - len(names)
    title = f"{', '.join(names)}{f' and {more} more' if more else ''}: pagescan"
    return title.encode(errors="replace").decode()  # a name may be any bytes


def _script(name: str) -> str:
    """Return a script without imports and exports: the page has one joined script."""
    return _MODULE_WORDS.sub("", _text(f"{name}.mjs"))


def _text(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return file.read()
