"""Pads and shortens text to a number of cells of a terminal."""

from pagescan.model.cell_width import width_of, width_of_character

__all__ = ["elide_middle", "fit_path", "folded", "pad", "width_of"]


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return text padded with blanks to a width; `right`: aligned to the right."""
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def elide_middle(text: str, width: int) -> str:
    """Return text that fits into a width: its middle gives way, its ends stay."""
    if width_of(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    if not tail:
        return _head(text, width)
    return f"{_head(text, width - 1 - tail)}…{_head(text[::-1], tail)[::-1]}"


def fit_path(text: str, width: int) -> str:
    """Return a name that fits into a width: of a path, the last parts stay."""
    if width_of(text) <= width or not text.startswith("/"):
        return elide_middle(text, width)
    parts = text.split("/")
    shown = parts.pop()
    while len(parts) > 1 and width_of(parts[-1]) + width_of(shown) + 3 <= width:
        shown = f"{parts.pop()}/{shown}"
    marked = f"…/{shown}"
    return marked if width_of(marked) <= width else elide_middle(shown, width)


def folded(text: str, width: int, mark: str = "; ") -> list[str]:
    """Return a text as lines that fit into a width: it is cut at marks only."""
    lines: list[str] = []
    for part in text.split(mark):
        if lines and width_of(lines[-1]) + width_of(mark) + width_of(part) <= width:
            lines[-1] += f"{mark}{part}"
        else:
            lines.append(part)
    return lines


def _head(text: str, width: int) -> str:
    """Return the first characters of a text, as many as fit into a width."""
    used = 0
    for at, char in enumerate(text):
        used += width_of_character(char)
        if used > width:
            return text[:at]
    return text
