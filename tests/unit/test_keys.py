"""Input from a terminal becomes keys, and the terminal gets its settings back."""

import os
import pty
import termios
from collections.abc import Iterator

import pytest

from pagescan.render.live_view.keys import Keyboard, decode, is_ours, keyboard


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Two ends of a terminal: the user's, the program's."""
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "keys", "rest"),
    [
        ("q", ["q"], ""),
        ("\x1b[A\x1bOB", ["up", "down"], ""),
        ("\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["pageup", "pagedown", "home", "end"], ""),
        ("\r\n\x7f\x08\t", ["enter", "enter", "backspace", "backspace", "tab"], ""),
        ("\x1b[1;5C", [], ""),  # Ctrl-right has no meaning, and is no "C"
        ("a\x1b[", ["a"], "\x1b["),
        ("\x1b", [], "\x1b"),
        ("\x1b\x1b[A", ["escape", "up"], ""),
        ("é\x0c", ["é"], ""),
        ("", [], ""),
    ],
)
def test_decode(text: str, keys: list[str], rest: str) -> None:
    """Sequences become names, characters stay; an incomplete sequence is the rest."""
    assert decode(text) == (keys, rest)


def test_keys_come_at_once_and_without_echo(terminal: tuple[int, int]) -> None:
    """A key needs no Enter; Ctrl-C stays a signal; the end restores all settings."""
    theirs, ours = terminal
    before = termios.tcgetattr(ours)
    made = Keyboard(ours)
    made.begin()
    local = termios.tcgetattr(ours)[3]
    assert not local & (termios.ECHO | termios.ICANON)
    assert local & termios.ISIG
    os.write(theirs, b"s\x1b[B")
    assert made.read() == ["s", "down"]
    made.end()
    assert termios.tcgetattr(ours) == before


def test_escape_alone_and_a_sequence_in_two_parts(terminal: tuple[int, int]) -> None:
    """A lone Escape is a key; a sequence that was cut is completed."""
    theirs, ours = terminal
    made = Keyboard(ours)
    made.begin()
    os.write(theirs, b"\x1b")
    assert made.read() == ["escape"]
    os.write(theirs, b"x\xc3")
    assert made.read() == ["x"]
    os.write(theirs, b"\xa9")
    assert made.read() == ["é"]


def test_a_terminal_that_is_gone() -> None:
    """No key comes from it any more, and its end is no error."""
    theirs, ours = pty.openpty()
    made = Keyboard(ours)
    made.begin()
    os.close(theirs)
    assert made.read() is None
    made.end()
    os.close(ours)


def test_no_keys_where_stdin_is_no_terminal() -> None:
    """A pipe is left alone, and so is a terminal with another foreground program."""
    theirs, ours = os.pipe()
    with keyboard(theirs) as made:
        assert made is None
    os.close(theirs)
    os.close(ours)
    theirs, ours = pty.openpty()
    before = termios.tcgetattr(ours)
    assert not is_ours(ours)  # it is not the terminal that controls this process
    with keyboard(ours) as made:
        assert made is None
        assert termios.tcgetattr(ours) == before
    os.close(theirs)
    os.close(ours)


def test_function_keys_of_htop() -> None:
    """They do what they do there: help, filter, sort and quit."""
    assert decode("\x1bOP\x1bOR\x1bOS\x1b[17~\x1b[21~") == (list("?//sq"), "")
