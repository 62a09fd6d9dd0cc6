"""Errors made of an OSError carry its facts: each raise in the package is read."""

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagescan.model import errors

ROOT = Path(__file__).parents[2]
FILES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "pagescan").rglob("*.py")
)
TYPED = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.PagescanError)
}
OS_ERRORS = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, OSError)
}


def caught(handler: ast.ExceptHandler) -> set[str]:
    """Return the names of the exceptions that a handler catches."""
    if handler.type is None:
        return set()
    return {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}


def raises_of(path: str) -> Iterator[tuple[int, ast.Call, str]]:
    """Yield the calls that make an error out of an OSError, with the OSError's name."""
    tree = ast.parse((ROOT / path).read_text())
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or not handler.name:
            continue
        if not caught(handler) & OS_ERRORS:
            continue
        for node in ast.walk(handler):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                cause = node.cause
                if isinstance(cause, ast.Name) and cause.id == handler.name:
                    yield node.lineno, node.exc, handler.name


def lacks(call: ast.Call, error: str) -> str | None:
    """Return the facts that a call leaves out; None: it passes all of them."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    given = {keyword.arg for keyword in call.keywords}
    if name == "from_oserror":
        return None if "call" in given else "call"
    if name in TYPED:
        return None if {"errno", "call"} <= given else "errno and call"
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    named = {
        item.id
        for argument in arguments
        for item in ast.walk(argument)
        if isinstance(item, ast.Name)
    }
    return None if error in named else "the OSError as an argument"


@pytest.mark.parametrize("path", FILES)
def test_each_error_has_the_facts_of_its_oserror(path: str) -> None:
    """An error names its system call and its errno, or its maker is given both."""
    missing = {
        line: what
        for line, call, error in raises_of(path)
        if (what := lacks(call, error)) is not None
    }
    assert missing == {}, path


def test_there_is_something_to_read() -> None:
    """There are such calls: otherwise the test above would check nothing."""
    assert sum(1 for path in FILES for _ in raises_of(path)) > 20
