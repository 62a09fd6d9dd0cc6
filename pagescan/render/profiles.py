"""Writes a profile in the format of a viewer, by the name of the format."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pagescan.model.profile import Profile

FORMATS = ("firefox", "speedscope", "collapsed")


def write_profile(profile: Profile, form: str, stream: TextIO) -> None:
    """Write a profile in one of `FORMATS`."""
    match form:
        case "firefox":
            from pagescan.render.firefox import write
        case "speedscope":
            from pagescan.render.speedscope import write
        case _:
            from pagescan.render.collapsed import write
    write(profile, stream)
    stream.flush()
