"""No function is longer than 50 lines, signature and docstring included."""

import ast

from tests.conftest import HERE

LONGEST = 50
PARAMETERS = "a command has one parameter per option"
REASONS = {
    "commands/exporter.py": {"command": PARAMETERS},
    "commands/record.py": {"command": PARAMETERS},
    "commands/report.py": {"command": PARAMETERS},
    "commands/scan.py": {"command": PARAMETERS},
    "commands/watch.py": {"command": PARAMETERS},
    "commands/who.py": {"command": PARAMETERS},
    "recording/api.py": {"record": "its arguments, and an example that runs"},
    "tracking/ticks.py": {"ticks": "one loop, and the three ways in which it ends"},
}


def long_functions() -> dict[str, set[str]]:
    """Return the names of all longer functions, by file."""
    package = HERE.parent / "pagescan"
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (node.end_lineno or 0) - node.lineno >= LONGEST:
                found.setdefault(str(path.relative_to(package)), set()).add(node.name)
    return found


def test_each_longer_one_has_a_reason() -> None:
    """A function that is no longer too long has no reason left, either."""
    reasons = {path: set(names) for path, names in REASONS.items()}
    assert long_functions() == reasons
