"""A consumer of `dump-plan`: makes images of a process, each based on the last.

    consumer.py FOLDER PID json|binary [--ack]

makes one image: gets the plan on top of its last epoch, reads the pages, writes the
image beside the last one, and makes it the current one by a single rename. It may be
killed at any instant: FOLDER/current is always a complete image. It uses no code of
pagescan.
"""

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")
ZEROS = bytes(PAGE)
ACTIONS = {1: "dump", 2: "zero", 4: "keep"}


def plan(pid: int, epoch: int, form: str) -> tuple[int, int | None, list[Any]]:
    """Return the epoch of the plan, its parent, and (start, end, action) rows."""
    words = [sys.executable, "-m", "pagescan", "dump-plan", str(pid), "-q"]
    done = subprocess.run(
        [*words, "--epoch", str(epoch), f"--{form}"], capture_output=True, check=True
    )
    if form == "json":
        document = json.loads(done.stdout)
        rows = [
            (int(row["start"], 16), int(row["end"], 16), row["plan"])
            for row in document["regions"]
        ]
        return document["epoch"], document["parent"], rows
    magic, *header = struct.unpack_from("<8s8Q", done.stdout)
    assert magic == b"PAGEPLAN"
    assert header[:3] == [1, PAGE, pid]
    number, parent, count = header[4:7]
    body = list(struct.iter_unpack("<QQ", done.stdout[72:]))
    assert len(body) == count
    rows = [
        (start, start + (word & ~0xFFF), ACTIONS[word & 0xFFF]) for start, word in body
    ]
    return number, None if parent == 2**64 - 1 else parent, rows


def read(memory: int, start: int, end: int) -> Iterator[bytes]:
    """Yield pages; an unmapped page is zeros: the next plan leaves it out."""
    for address in range(start, end, PAGE):
        try:
            yield os.pread(memory, PAGE, address)
        except OSError:
            yield ZEROS


def image_of(
    pid: int, rows: list[Any], before: dict[int, bytes] | None
) -> dict[int, bytes]:
    """Return the pages of a new image, by address."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    image: dict[int, bytes] = {}
    last = 0
    for start, end, action in rows:
        assert last <= start < end
        last = end
        addresses = range(start, end, PAGE)
        if action == "dump":
            image.update(zip(addresses, read(memory, start, end), strict=True))
        elif action == "zero":
            image.update(dict.fromkeys(addresses, ZEROS))
        else:
            assert before is not None
            image.update((at, before.get(at, ZEROS)) for at in addresses)
    return image


def main() -> None:
    """Make one image."""
    folder, pid, form = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    current = folder / "current"
    have: dict[str, Any] = {"epoch": 0, "image": {}, "done": 0}
    if current.exists():
        have = pickle.loads(current.read_bytes())
    number, parent, rows = plan(pid, have["epoch"], form)
    assert parent in (None, have["epoch"])
    image = image_of(pid, rows, None if parent is None else have["image"])
    made = {"epoch": number, "image": image, "done": have["done"] + 1}
    fresh = folder / "fresh"
    fresh.write_bytes(pickle.dumps(made))
    fresh.rename(current)
    if "--ack" in sys.argv:
        words = [sys.executable, "-m", "pagescan", "dump-plan", str(pid)]
        subprocess.run([*words, "--ack", str(number)], check=True)


if __name__ == "__main__":
    main()
