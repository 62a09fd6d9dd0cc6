"""Writes a profile as collapsed stacks: one line per stack, with its bytes.

flamegraph.pl, inferno, speedscope and others read it.
"""

from typing import TextIO

from pagescan.model.profile import Profile
from pagescan.model.units import escape


def write(profile: Profile, stream: TextIO) -> None:
    """Write a profile: thread;outermost function;…;innermost function BYTES.

    Of several processes, each line begins with the process.

    The samples of a stack at all times are one line.
    """
    sums: dict[str, int] = {}
    for thread in profile.threads:
        owner = [profile.process_of(thread)] if profile.has_several else []
        for stack in thread.stacks:
            names = [*owner, thread.name, *(frame.function for frame in stack.frames)]
            line = ";".join(map(_part, names))
            sums[line] = sums.get(line, 0) + stack.bytes
    for line, size in sums.items():
        stream.write(f"{line} {size}\n")


def _part(name: str) -> str:
    """Return a name without the character that separates the names."""
    return escape(name).replace(";", ":") or "?"
