"""Writes a profile as collapsed stacks: one line per stack, with its bytes.

flamegraph.pl, inferno, speedscope and others read it.
"""

from typing import TextIO

from pagescan.model.profile import Profile
from pagescan.model.units import escape


def write(profile: Profile, stream: TextIO) -> None:
    """Write a profile: thread;outermost function;…;innermost function BYTES."""
    for thread in profile.threads:
        for stack in thread.stacks:
            names = [thread.name, *(frame.function for frame in stack.frames)]
            stream.write(f"{';'.join(map(_part, names))} {stack.bytes}\n")


def _part(name: str) -> str:
    """Return a name without the character that separates the names."""
    return escape(name).replace(";", ":") or "?"
