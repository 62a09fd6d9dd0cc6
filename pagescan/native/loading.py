"""Loads the shim; says why that fails, and the remedy.

In a source tree the shim may be older than the Python files, after `git pull`. Then its
functions may have other arguments, or be missing.
"""

import os
from types import ModuleType

_HERE = os.path.dirname(__file__)
_HEADERS = ("include/pagescan_writewatch.h", "shim.h")
"""The headers that `_build.py` reads, in its order; a wheel has only the first one."""


class ShimError(ImportError):
    """The compiled part of pagescan is missing, or is of no use.

    Attributes:
        hint: The remedy.
    """

    def __init__(self, why: str) -> None:
        """Add the remedy to the reason."""
        super().__init__(f"the compiled part of pagescan {why}")
        self.hint = "pip install --force-reinstall pagescan"
        if _in_source_tree():
            self.hint = f"make -C {os.path.dirname(os.path.dirname(_HERE))} dev"


def load() -> ModuleType:
    """Return the shim.

    Raises:
        ShimError: It is missing, cannot be loaded, or is older than its headers.
    """
    try:
        from pagescan.native import _shim
    except ImportError as error:
        if not any(name.startswith("_shim.") for name in _libraries()):
            raise ShimError("is missing") from error
        raise ShimError(f"cannot be loaded: {error}") from error
    if _in_source_tree() and getattr(_shim.lib, "PS_HEADERS", 0) != _sum_of_headers():
        raise ShimError("is older than its other files")
    return _shim


def _libraries() -> list[str]:
    return [name for name in os.listdir(_HERE) if name.endswith(".so")]


def _in_source_tree() -> bool:
    """Whether the sources are beside this file."""
    return os.path.exists(os.path.join(_HERE, _HEADERS[-1]))


def _sum_of_headers() -> int:
    import zlib

    total = 0
    for name in _HEADERS:
        with open(os.path.join(_HERE, name), "rb") as header:
            total = zlib.crc32(header.read(), total)
    return total
