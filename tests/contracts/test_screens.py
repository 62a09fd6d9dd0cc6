"""Each block of output in README and guides is made by a script from this program."""

import re
import runpy

import pytest

from tests.conftest import HERE

ROOT = HERE.parent
SCRIPT = runpy.run_path(str(ROOT / "docs/make_screens.py"))
_BLOCK = re.compile(r"^```text\n([^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, bool]]:
    """Return the page and line of each block, and whether the script makes it."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        made = {match.start(8) for match in SCRIPT["BLOCK"].finditer(text)}
        found += [
            (f"{page.name}:{text.count(chr(10), 0, at)}", at in made)
            for at in (match.start(1) for match in _BLOCK.finditer(text))
        ]
    return found


@pytest.mark.parametrize(("place", "made"), blocks())
def test_a_block_is_made_by_the_script(place: str, *, made: bool) -> None:
    """A comment before it tells `make screens` the command of this block."""
    assert made, place


def test_the_script_has_each_target() -> None:
    """A block of a target that the script does not start would never be made."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {m[2] for page in pages for m in SCRIPT["BLOCK"].finditer(page.read_text())}
    assert named == SCRIPT["TARGETS"].keys()
