"""Turns the names that C++, Rust and Go give to the linker into those of the source.

c++filt of the binutils does it for C++ and Rust. The target chooses the
names, and a demangler is a parser: as a process of its own it may fail, hang or grow.
"""

import re
from collections.abc import Iterable

_MANGLED = re.compile(rb"_{1,2}[ZR][\w$.@]{2,4095}")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_CRATE = re.compile(r"\[[0-9a-f]{6,16}\]")
_GO_ESCAPE = re.compile(r"%([0-9a-f]{2})")
_SECONDS = 10
_LONGEST_ANSWER = 16 << 20
LONGEST = 1024
"""The most characters of a name that are shown; names of templates are longer."""


def available() -> bool:
    """Whether names of C++ and Rust can be read."""
    return _tool() is not None


def _tool() -> str | None:
    import shutil

    return shutil.which("c++filt")


def demangle(names: Iterable[bytes]) -> dict[bytes, str]:
    """Return the names in the source for some names of the linker.

    A name of another language, or one that cannot be decoded, stays as it is.
    """
    distinct = list(dict.fromkeys(names))
    mangled = [name for name in distinct if _MANGLED.fullmatch(name)]
    answers = dict(zip(mangled, _ask(mangled), strict=False))
    return {name: _tidy(answers.get(name, name)) for name in distinct}


def _tidy(name: bytes) -> str:
    text = name.decode(errors="backslashreplace")
    if _RUST_HASH.search(text):
        text = _RUST_HASH.sub("", text)
    text = _RUST_CRATE.sub("", text)
    if "/" in text and "%" in text:
        # The linker of Go writes the dots of an import path as %2e.
        text = _GO_ESCAPE.sub(lambda code: chr(int(code[1], 16)), text)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _ask(mangled: list[bytes]) -> list[bytes]:
    """Let c++filt decode the names; fewer lines than names mean that it failed."""
    tool = _tool() if mangled else None
    if tool is None:
        return []
    import subprocess
    import tempfile
    import threading

    with tempfile.TemporaryFile() as questions:
        questions.write(b"\n".join(mangled) + b"\n")
        questions.seek(0)
        with subprocess.Popen(
            [tool],
            stdin=questions,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C"},
        ) as process:
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            try:
                answer = process.stdout.read(_LONGEST_ANSWER) if process.stdout else b""
                process.kill()
            finally:
                timer.cancel()
    lines = answer.split(b"\n")
    return lines[:-1]  # the last is empty, or was cut
