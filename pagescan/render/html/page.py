"""Writes the page: one file that holds its styles, scripts, licence and data."""

from __future__ import annotations

import html
import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING

from pagescan.render.html.frames import payload

if TYPE_CHECKING:
    from pagescan.render.html.records import PageContents

CAP = 20_000_000
"""The most bytes of a page; beyond them its map is coarser, and the page says so."""

_HERE = os.path.dirname(__file__)
_SCRIPTS = (
    *("format", "colour", "decode", "layout", "model", "raster", "hover", "view"),
    *("cursor", "map", "keys", "lines", "tables", "main"),
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


def _title(contents: PageContents) -> str:
    names = [f"{one.name} ({one.pid})" for one in contents.processes[:3]]
    more = len(contents.processes) - len(names)
    title = f"{', '.join(names)}{f' and {more} more' if more else ''}: pagescan"
    return title.encode(errors="replace").decode()  # a name may be any bytes


def _script(name: str) -> str:
    """Return a script without its words of a module: on a page, all are one."""
    return _MODULE_WORDS.sub("", _text(f"{name}.mjs"))


def _text(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return file.read()
