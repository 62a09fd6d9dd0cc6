"""The tables of the docs name tests, and every named test exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/exactness.md", "docs/harmless.md", "tests/faults.md")


@pytest.mark.parametrize("page", PAGES)
def test_each_named_test_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", text)
    assert len(named) > 10
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), (path, name)


@pytest.mark.parametrize("page", PAGES)
def test_each_row_names_a_test(page: str) -> None:
    """Every row of a table names a test: a promise needs one."""
    lines = (ROOT / page).read_text().splitlines()
    heads = [
        at for at, line in enumerate(lines) if re.fullmatch(r"\|.*\| test \|", line)
    ]
    assert heads
    for head in heads:
        for row in lines[head + 2 :]:
            if not row.startswith("|"):
                break
            last = row.strip("| ").rpartition("|")[2]
            assert "`tests/" in last or last.strip() == "all of them", row
