"""The settings of one run: how many messages, and which colours."""

import os
import sys
from dataclasses import dataclass

from pagescan.console.streams import tell
from pagescan.model.memory import Untracked
from pagescan.model.units import escape


@dataclass(slots=True)
class Context:
    """The settings of a run; the command group makes them, options fill them in."""

    quiet: bool = False
    verbose: int = 0
    color: bool | None = None
    """None: decided by the terminal and the environment."""

    def say(self, message: str) -> None:
        """Print a message on stderr, unless -q was given."""
        if not self.quiet:
            tell(f"pagescan: {message}")

    def hint(self, message: str, *, whole: bool = True) -> None:
        """Print a hint on stderr; `whole`: it has a command, which can be copied."""
        if not self.quiet:
            tell(f"hint: {message}", whole=whole)

    def detail(self, message: str) -> None:
        """Print a message that only -v shows."""
        if self.verbose and not self.quiet:
            tell(f"pagescan: {message}")

    def say_untracked(self, untracked: tuple[Untracked, ...]) -> None:
        """Print which memory could be written and is not tracked, also with -q."""
        by_reason: dict[str, list[str]] = {}
        for item in untracked:
            if not item.never_written:
                by_reason.setdefault(item.why, []).append(escape(item.mapping))
        for why, names in by_reason.items():
            shown = ", ".join(dict.fromkeys(names[:4]))
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            tell(f"pagescan: not tracked: {shown}{more}: {why}")

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars may be drawn on stderr."""
        return not self.quiet and sys.stderr.isatty() and moves_cursor()


def moves_cursor() -> bool:
    """Whether the terminal can move its cursor."""
    return os.environ.get("TERM", "dumb") != "dumb"
