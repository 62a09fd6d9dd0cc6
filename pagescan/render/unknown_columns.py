"""Explains a column that does not exist; it is loaded only after such an error."""

from collections.abc import Collection

_ELSEWHERE = {
    "rss": "present",
    "resident": "present",
    "uss": "private",
    "dirty": "written",
    "vsz": "size",
    "virt": "size",
    "swap": "swapped",
    "name": "mapping",
    "path": "mapping",
    "address": "start",
    "mode": "perms",
    "thp": "huge",
    "kind": "label",
}
"""The names of columns in other tools."""


def hint_for(key: str, columns: Collection[str]) -> str:
    """Return the hint: the column that was meant, if that is known, and all columns."""
    there = f"there are: {' '.join(columns)}"
    meant = _ELSEWHERE.get(key.lower())
    return f"did you mean {meant}? {there}" if meant in columns else there
