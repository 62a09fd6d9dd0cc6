"""The examples run, and show the promised effect."""

import json
import subprocess
import sys

import pytest

from tests.conftest import HERE

ITEMS = 20_000


@pytest.mark.needs("tracking")
def test_prefork() -> None:
    """Without freeze a collection writes to every item, with it to none."""
    done = subprocess.run(
        [sys.executable, "examples/prefork.py", "--json", f"--items={ITEMS}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE.parent,
    )
    result = json.loads(done.stdout)
    assert len(result["plain"]) == len(result["frozen"]) == 4
    # Each item has a list and a dict, with 16 bytes of GC header each, and more.
    least = ITEMS * 2 * (16 + 56) // 4096
    for plain, frozen in zip(result["plain"], result["frozen"], strict=True):
        assert plain["collect"] >= least
        assert frozen["collect"] < plain["collect"] // 2
