"""Tells what a path is that was given in place of a recording."""

import os

from pagescan.model.errors import PagescanError, file_error
from pagescan.recording.file_names import SUFFIX

MARKER = "_pagescan.json"
"""The file that makes a folder a dataset."""


def unreadable(path: str, error: OSError) -> PagescanError:
    """Return the error for a recording that cannot be opened, with what was meant."""
    return file_error(error, f"read {path}", hint=_meant(path, error))


def _meant(path: str, error: OSError) -> str | None:
    name = os.fspath(path)
    if isinstance(error, FileNotFoundError):
        if name.isdigit():
            return f"pagescan record {name} makes a recording of that process"
        found = [name + SUFFIX] if os.path.isfile(name + SUFFIX) else []
        return f"did you mean {found[0]}?" if found else None
    if not os.path.isdir(name):
        return None
    if os.path.isfile(os.path.join(name, MARKER)):
        return f"it is a dataset: pagescan report {name} --fleet"
    if any(entry.name.endswith(SUFFIX) for entry in os.scandir(name)):
        return f"recordings are named one by one: {os.path.join(name, '*' + SUFFIX)}"
    return None
