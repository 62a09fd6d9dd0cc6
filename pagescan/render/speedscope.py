"""Writes a profile for speedscope; source: its file-format-schema.json."""

import json
from typing import Any, TextIO

from pagescan import __version__
from pagescan.model.profile import Frame, Profile, ThreadProfile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(profile: Profile, stream: TextIO) -> None:
    """Write a profile, one lane per thread, weighted by bytes."""
    frames: dict[Frame, int] = {}
    lanes = [_lane(profile, thread, frames) for thread in profile.threads]
    document = {
        "$schema": _SCHEMA,
        "exporter": f"pagescan {__version__}",
        "name": profile.title,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(frame) for frame in frames]},
        "profiles": lanes,
    }
    json.dump(document, stream)
    stream.write("\n")


def _lane(
    profile: Profile, thread: ThreadProfile, frames: dict[Frame, int]
) -> dict[str, Any]:
    """Return the profile of a thread; new frames are added to the table."""
    samples = [
        [frames.setdefault(frame, len(frames)) for frame in stack.frames]
        for stack in thread.stacks
    ]
    weights = [stack.bytes for stack in thread.stacks]
    return {
        "type": "sampled",
        "name": _name(profile, thread),
        "unit": "bytes",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }


def _name(profile: Profile, thread: ThreadProfile) -> str:
    """Return the name of a lane; it begins with the process if there are several."""
    own = thread.name if thread.tid is None else f"{thread.name} {thread.tid}"
    if not profile.has_several:
        return own
    return f"{profile.process_of(thread)}: {own}"


def _frame(frame: Frame) -> dict[str, Any]:
    keys: dict[str, Any] = {"name": frame.function}
    if frame.file or frame.module:
        keys["file"] = frame.file or frame.module
    if frame.line is not None:
        keys["line"] = frame.line
    return keys
