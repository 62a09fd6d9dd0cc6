"""Tests reach into the private names of pagescan no more often than they did.

python tests/contracts/test_private_names.py     prints each place, and the number
"""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
MOST = 32
"""Lower it when a test stops reaching in; never raise it."""

PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace", "_repr_html_"}
"""Public names that begin with an underscore: those of Python, and of notebooks."""


def is_private(name: object) -> bool:
    """Whether a name is private; those with two underscores are Python's."""
    return (
        isinstance(name, str)
        and name.startswith("_")
        and not name.startswith("__")
        and name not in PUBLIC
    )


def reaches_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line and private name that is not the file's own.

    They are attributes of anything but `self` and `cls`, names imported
    from pagescan, and names that are replaced with `setattr` or `getattr`.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of = node.value
            own = isinstance(of, ast.Name) and of.id in ("self", "cls")
            if not own:
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                if is_private(name.name) and (node.module or "").startswith("pagescan"):
                    yield node.lineno, name.name
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func
            function = getattr(called, "attr", getattr(called, "id", ""))
            word = getattr(node.args[1], "value", None)
            if function in ("setattr", "getattr") and is_private(word):
                yield node.lineno, str(word)


def reaches(tests: Path) -> list[str]:
    """Return each place of a folder as "file:line name"."""
    return [
        f"{path.relative_to(tests)}:{line} {name}"
        for path in sorted(tests.rglob("*.py"))
        for line, name in reaches_in(path.read_text())
    ]


def test_private_names_are_not_used_more_often() -> None:
    found = reaches(TESTS)
    assert len(found) <= MOST, "\n".join(found)


def test_a_reach_is_seen() -> None:
    """A reach is found: otherwise the test above would count nothing."""
    text = (
        "from pagescan.native import _shim\n"
        "tracking._judged()\n"
        "patch.setattr(native, '_ROWS', 3)\n"
        "self._own, row._replace()\n"
    )
    assert sorted(line for line, _ in reaches_in(text)) == [1, 2, 3]


if __name__ == "__main__":
    import sys

    places = reaches(Path(sys.argv[1]) if len(sys.argv) > 1 else TESTS)
    sys.stdout.write("\n".join([*places, str(len(places)), ""]))
