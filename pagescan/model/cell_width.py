"""Measures text in cells of a terminal: 0, 1 or 2 per character; pure, no I/O."""

import unicodedata


def width_of(text: str) -> int:
    """Return how many cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(width_of_character, text))


def width_of_character(char: str) -> int:
    """Return how many cells a character takes."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
