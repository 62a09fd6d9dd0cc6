"""Breaks messages into lines that fit a terminal: at blanks, never in a figure."""

import re

from pagescan.model.cell_width import width_of

_INDENT = "  "
_NARROWEST = 30  # below it the terminal breaks lines as it likes
# A figure stays with its unit, a sign with its figure, an option with its value.
_TOGETHER = re.compile(
    r"(?<=\d) (?=[^\W\d]|%)|(?<=[-+±<>≥≤]) (?=\d)|(?<= )(--?[a-z][-a-z]*) (?=\d)"
)
_JOINT = "\0"


def lines_of(text: str, width: int, indent: str = _INDENT) -> list[str]:
    """Return a text as lines of at most a width; those behind the first are indented.

    A word that is wider than a line has a line of its own.
    """
    if width < _NARROWEST or width_of(text) <= width:
        return [text]
    joined = _TOGETHER.sub(lambda match: (match[1] or "") + _JOINT, text)
    lines: list[str] = []
    for word in joined.split(" "):
        if lines and width_of(lines[-1]) + 1 + width_of(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent if lines else ''}{word}")
    return [line.replace(_JOINT, " ") for line in lines]
