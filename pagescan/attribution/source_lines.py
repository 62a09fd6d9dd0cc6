"""Source lines and inlined functions of code, from DWARF: `pagescan[lines]`."""

from types import ModuleType
from typing import NamedTuple

from pagescan.model.extras import lacking


class Place(NamedTuple):
    """Where an instruction comes from."""

    file: str | None
    line: int | None
    inlined: tuple[str, ...]
    """The functions that were inlined there, the innermost first."""


class SourceLines:
    """The lines of one file."""

    def __init__(self, fd: int, base: int) -> None:
        """Read the DWARF of an open file; a file without DWARF has no lines.

        Args:
            fd: The file; it stays the caller's.
            base: The lowest address of its segments.

        Raises:
            PagescanError: The extra is not installed.
        """
        symbolic = load()
        self._base = base
        self._cache = None
        try:
            archive = symbolic.Archive.open(f"/proc/self/fd/{fd}")
            for code in archive.iter_objects():
                self._cache = code.make_symcache()
                break
        except (symbolic.SymbolicError, OSError):
            self._cache = None

    def at(self, address: int) -> Place | None:
        """Return the place of the instruction at an address; None: not known."""
        if self._cache is None:
            return None
        frames = self._cache.lookup(address - self._base)
        if not frames or not frames[0].full_path or not frames[0].line:
            return None
        inlined = tuple(frame.symbol for frame in frames[:-1])
        return Place(frames[0].full_path, frames[0].line, inlined)


def load() -> ModuleType:
    """Return the module symbolic.

    Raises:
        PagescanError: It is not installed.
    """
    try:
        import symbolic
    except ImportError as error:
        raise lacking("--by line", "the package symbolic", "lines") from error
    module: ModuleType = symbolic
    return module
