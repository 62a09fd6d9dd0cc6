r"""Reads single keys from a terminal, and gives the terminal back as it was.

Ctrl-C, Ctrl-Z and Ctrl-\ stay signals: only the echo and the wait for a whole line are
off.
"""

import codecs
import contextlib
import os
import re
import select
import termios
from collections.abc import Iterator

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[@-~]|O[@-~])")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;?]*|O)?")
_REST_MS = 40  # for the rest of an Escape sequence: a slow line may cut it
_LOCAL = 3  # index of the local flags in the result of tcgetattr

# Cursor keys in their two modes, and the editing keys of xterm, rxvt and the console.
_NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[7~": "home",
    "\x1b[8~": "end",
    "\x1b[5~": "pageup",
    "\x1b[6~": "pagedown",
    "\x1bOM": "enter",
    # The function keys of htop: help, search, filter, sort, quit.
    "\x1bOP": "?",
    "\x1b[11~": "?",
    "\x1bOR": "/",
    "\x1b[13~": "/",
    "\x1bOS": "/",
    "\x1b[14~": "/",
    "\x1b[17~": "s",
    "\x1b[21~": "q",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\t": "tab",
    "\x1b": "escape",
}


def decode(text: str) -> tuple[list[str], str]:
    """Return the keys in a text, and the begin of a sequence that is not complete.

    A key is a name ("up", "enter", "escape") or a character; a sequence without a
    name is left out.
    """
    keys = []
    at = 0
    while at < len(text):
        if found := _SEQUENCE.match(text, at):
            keys += [_NAMES[found[0]]] if found[0] in _NAMES else []
            at = found.end()
            continue
        if (begun := _BEGUN.match(text, at)) and begun.end() == len(text):
            return keys, text[at:]
        char = text[at]
        if char in _NAMES:
            keys.append(_NAMES[char])
        elif char.isprintable():
            keys.append(char)
        at += 1
    return keys, ""


class Keyboard:
    """A terminal that gives each key at once.

    Attributes:
        fd: The terminal; readable when a key was pressed.
    """

    def __init__(self, fd: int) -> None:
        """Remember the settings of the terminal; `begin` changes them."""
        self.fd = fd
        self._before = termios.tcgetattr(fd)
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._open = True

    def begin(self) -> None:
        """Switch the echo off, and the wait for a whole line."""
        with contextlib.suppress(termios.error):
            mode = termios.tcgetattr(self.fd)
            mode[_LOCAL] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(self.fd, termios.TCSANOW, mode)

    def end(self) -> None:
        """Restore the terminal's settings; unread keys are dropped."""
        with contextlib.suppress(termios.error):
            termios.tcflush(self.fd, termios.TCIFLUSH)
            termios.tcsetattr(self.fd, termios.TCSANOW, self._before)

    def read(self) -> list[str] | None:
        """Return the keys that were pressed; None: the terminal is gone."""
        text = self._some()
        if text is None:
            return None
        keys, rest = decode(text)
        while rest:
            more = self._some() if self._waits() else ""
            if not more:  # it was the Escape key itself
                return [*keys, "escape"] if rest == "\x1b" else keys
            further, rest = decode(rest + more)
            keys += further
        return keys

    def _some(self) -> str | None:
        try:
            data = os.read(self.fd, 1024)
        except BlockingIOError:
            return ""
        except OSError:
            return None
        return self._decoder.decode(data) if data else None

    def _waits(self) -> bool:
        waiter = select.poll()
        waiter.register(self.fd, select.POLLIN)
        return bool(waiter.poll(_REST_MS))


def is_ours(fd: int) -> bool:
    """Whether a descriptor is a terminal, and this process has it in the foreground."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


@contextlib.contextmanager
def keyboard(fd: int = 0) -> Iterator[Keyboard | None]:
    """Yield the keyboard; None where there is no terminal in the foreground."""
    if not is_ours(fd):
        yield None
        return
    made = Keyboard(fd)
    try:
        made.begin()
        yield made
    finally:
        made.end()
