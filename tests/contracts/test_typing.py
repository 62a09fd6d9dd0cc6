"""A user's program passes mypy's strict checks with the types in the package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HERE

PROGRAM = """
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager

import pagescan
from pagescan.pytest_plugin import DirtyPages
from pagescan.writewatch import WriteWatch

query = pagescan.Query(require=pagescan.Category.PRESENT, max_pages=10)
batch: pagescan.Batch = pagescan.scan(None, ["[heap]"], query)
starts: array[int] = batch.starts
for region in batch.regions():
    where: pagescan.Mapping | None = region.mapping
    print(region.start, region.pages, region.categories.names, where)
for row in pagescan.maps(4242):
    present: int | None = row.counts["present"]
with pagescan.track(4242) as tracking:
    for region in tracking.written(rearm=True):
        print(region)
    look = tracking.look()
    print(look.cost.scan_ns, look.untracked)
with pagescan.written_pages() as written:
    pass
total: int = written.bytes + written.pages
print(total, [one.mapping.label for one in written.by_mapping()])
with WriteWatch(1 << 20) as watch:
    pages, size = watch.get(reset=True)
    first: int = pages[0] + size

def test_of_a_user(dirty_pages: DirtyPages) -> None:
    with dirty_pages(max=10) as block:
        print(block)
    print(block.pages)

try:
    pagescan.scan(1)
except pagescan.AccessDeniedError as error:
    hint: str | None = error.hint
"""

WRONG = {
    "pagescan.scan(4242.0)": "arg-type",
    "pagescan.track(ranges=[1])": "list-item",
    "pagescan.written_pages().pages()": "operator",
    "pagescan.nothing": "attr-defined",
}


def check(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy on a program outside the tree."""
    program = folder / "program.py"
    program.write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(HERE.parent)},
    )


@pytest.mark.needs("mypy")
def test_a_program_type_checks_strictly(tmp_path: Path) -> None:
    done = check(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.needs("mypy")
def test_mistakes_are_found(tmp_path: Path) -> None:
    done = check("\n".join(["import pagescan", *WRONG]), tmp_path)
    for line, code in enumerate(WRONG.values(), 2):
        assert f"program.py:{line}: error:" in done.stdout, done.stdout
        assert f"[{code}]" in done.stdout, done.stdout
