"""A target that writes each of its pages once, and tells when."""

import subprocess
from array import array
from dataclasses import dataclass
from pathlib import Path

import pagescan
from pagescan.recording.store import Recording, open_recording
from tests.conftest import HERE, PAGE
from tests.synthetic import pages_of

PAGES = 60_000


@dataclass
class Front:
    """A process that writes each of its pages once, and says when."""

    process: subprocess.Popen[str]
    start: int
    log: Path

    @property
    def words(self) -> tuple[str, str]:
        """Its pid and its pages, as words of the command line."""
        return str(self.process.pid), f"{self.start:#x}+{PAGES * PAGE}"

    def times(self) -> "tuple[array[int], array[int]]":
        """Return when each page was written: not before, and not after."""
        numbers = array("Q", self.log.read_bytes())
        return numbers[::2], numbers[1::2]


def compiled(folder: Path) -> Path:
    """Return the compiled program."""
    path = folder / "front"
    source = HERE / "targets/front.c"
    subprocess.run(["cc", "-O1", "-Wall", "-o", str(path), str(source)], check=True)
    return path


def begun(program: Path, log: Path) -> Front:
    """Start one; at the end its stdin must be closed."""
    process = subprocess.Popen(
        [str(program), str(PAGES), str(log), "100"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return Front(process, int(process.stdout.readline(), 16), log)


def check(recording: Recording, front: Front, process: int = 0) -> None:
    """Compare each look at a process with the times that it has written down.

    A page that was written before a look ended may be in that look or in the next; it
    is in one of them, and in no earlier one.
    """
    assert recording.damage == []
    begun, done = front.times()
    seen: set[int] = set()
    armed = recording.processes[process].armed_at.timestamp() * 1e9
    before = armed
    for look in recording.looks:
        if look.process != process:
            continue
        pages = pages_of(recording.columns(look))
        assert len(pages) == look.pages
        numbers = {(page - front.start) // PAGE for page in pages}
        if recording.facts.group:  # no RANGE selects the pages of each member
            numbers &= set(range(PAGES))
        end = look.time_ns + 1000  # it is exact to the microsecond
        assert all(begun[number] and begun[number] <= end for number in numbers)
        seen |= numbers
        due = {
            number
            for number, at in enumerate(done)
            if at and begun[number] > armed and at <= before
        }
        assert due <= seen, (look.number, sorted(due - seen)[:5])
        before = look.time_ns
    created = recording.facts.begun.timestamp() * 1e9  # before it is armed
    early = {number for number in seen if done[number] < created}
    assert early == set(), "pages from before the recording began"


def looks_of(path: Path) -> int:
    """Return how many looks a file has now; it may not exist yet."""
    try:
        with open_recording(str(path)) as recording:
            return len(recording.looks)
    except pagescan.PagescanError:
        return 0
