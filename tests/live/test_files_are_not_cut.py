"""Files are unregistered whole or by the last close; Linux 6.12 fails otherwise.

Under that kernel an error of pagescan would stop the machine in most of these tests,
because the programs come from a file system whose mappings have a close() of their own.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from pagescan import native
from pagescan.model.errors import PagescanError
from pagescan.target.process import Target as Process
from pagescan.target.selection import Selection
from pagescan.tracking import attach
from pagescan.tracking.tracking import Tracking
from pagescan.tracking.unregistering import WHOLE
from tests import witness
from tests.conftest import Result, Target

Start = Callable[..., Target]
Run = Callable[..., Result]

pytestmark = pytest.mark.needs("tracking")
WORDS = "m=anon,pages=64,fill=1", "s=shmem,pages=64"


def lines(pid: int) -> list[list[str]]:
    """Return the lines of maps, split into words."""
    return [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]


def text_of_libc(pid: int) -> tuple[int, int]:
    """Return the range of the C library's code."""
    (words,) = (
        words for words in lines(pid) if "libc" in words[-1] and words[1] == "r-xp"
    )
    low, high = (int(word, 16) for word in words[0].split("-"))
    return low, high


def parts(pid: int, part: str) -> str:
    """Return a part of the C library's code, as a RANGE."""
    low, high = text_of_libc(pid)
    third = (high - low) // 3 & -witness.PAGE
    bounds = {
        "head": (low, low + third),
        "middle": (low + third, low + 2 * third),
        "tail": (low + third, high),
    }
    return "{:#x}-{:#x}".format(*bounds[part])


@pytest.mark.parametrize("part", ["head", "middle", "tail"])
def test_a_part_of_a_file(part: str, target: Start, pagescan: Run) -> None:
    """Arming and disarming such a part through a keeper leaves nothing."""
    made = target(*WORDS)
    assert pagescan("arm", made.pid, parts(made.pid, part)).code == 0
    assert witness.registered(made.pid) == 1
    assert pagescan("disarm", made.pid).code == 0
    assert witness.registered(made.pid) == 0


@pytest.mark.parametrize("part", ["head", "middle", "tail"])
def test_a_part_of_a_file_without_a_keeper(part: str, target: Start) -> None:
    """The same at the end of a tracking without a keeper."""
    made = target(*WORDS)
    chosen = Selection.parse([parts(made.pid, part)])
    with Process.open(made.pid) as process:
        Tracking.start(process, chosen).close()
    assert witness.registered(made.pid) == 0


def test_all_files_whole(target: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call begins or ends inside a mapping of a file; memory goes in slices."""
    made = target(*WORDS)
    asked: dict[tuple[int, int], int] = {}
    plain = native.uffd_unregister

    def noted(*words: int, align: int, **more: object) -> None:
        asked[words[2], words[3]] = align
        plain(*words, align=align, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "uffd_unregister", noted)
    with Process.open(made.pid) as process:
        Tracking.start(process).close()
    files = 0
    for words in lines(made.pid):
        low, high = (int(word, 16) for word in words[0].split("-"))
        align = asked.get((low, high))
        if words[3] == "00:00":
            assert align != WHOLE
        elif words[-1].endswith((".so.6", "ld-linux-x86-64.so.2")):
            assert align == WHOLE
            files += 1
    assert files >= 4
    assert asked[made.ranges["m"]] != WHOLE
    assert asked[made.ranges["s"]] != WHOLE
    order = [align == WHOLE for align in asked.values()]
    assert order == sorted(order, reverse=True), "files go first"


def test_sysv_memory_whole(pagescan: Run, target: Start) -> None:
    """SysV memory is on the device of a memfd, and kernels treat it as a file."""
    made = target(*WORDS, "v=sysv,pages=8192")
    assert pagescan("arm", made.pid).code == 0
    assert pagescan("disarm", made.pid).code == 0
    assert witness.registered(made.pid) == 0


def test_tried_on_anonymous_memory(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check whether a userfaultfd is the target's never uses a file."""
    made = target(*WORDS)
    tried: list[int] = []

    def noted(_uffd: int, _pagemap: int, start: int, *_: object) -> bool:
        tried.append(start)
        raise OSError

    monkeypatch.setattr(native, "uffd_is_of", noted)
    with Process.open(made.pid) as process, pytest.raises(PagescanError):
        attach._check_it_is_of(process, process.pagemap)
    kinds = {int(words[0].split("-")[0], 16): words for words in lines(made.pid)}
    assert tried
    assert all(kinds[start][3:5] == ["00:00", "0"] for start in tried)
