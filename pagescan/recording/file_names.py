"""The names of the files of a recording; pure, no I/O."""

import os
import re
from datetime import datetime

SUFFIX = ".pagescan"
_LONGEST = 100  # characters of the name of a group in that of a file


def default_name(stem: str, moment: datetime) -> str:
    """Return the name of a recording: its stem and the time, safe as a file name.

    Args:
        stem: The name and the pid of the target, or the kind and the name of a group.
        moment: The time.
    """
    name = re.sub(r"[^\w.+-]", "_", stem, flags=re.ASCII).lstrip(".-") or "process"
    return f"{name[:_LONGEST]}-{moment:%Y%m%dT%H%M%SZ}{SUFFIX}"


def numbered(path: str, number: int) -> str:
    """Return the name of the file with that number: -2, -3 before the suffix."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{number}{suffix}"
