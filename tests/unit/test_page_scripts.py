"""The units of the page's scripts, by node's own test runner."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.needs("node")
def test_scripts_of_the_page() -> None:
    words = ["node", "--test", "tests/page/"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert "# pass 0" not in done.stdout
