"""The two packages that load names at their first use: their stubs name the same."""

import ast
import importlib
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["pagescan", "pagescan.native"])
def test_a_stub_has_the_names_and_their_homes(package: str) -> None:
    module = importlib.import_module(package)
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    homes = {
        alias.name: str(node.module).removeprefix(f"{package}.")
        for node in ast.walk(ast.parse(stub.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == module._HOME
    for name, home in homes.items():
        value = getattr(module, name)
        assert value is getattr(importlib.import_module(f"{package}.{home}"), name)


def test_no_module_replaces_a_name() -> None:
    """No module has a public name: importing it would replace that name."""
    for package in ("pagescan", "pagescan.native"):
        names = importlib.import_module(package)._HOME
        assert {home.partition(".")[0] for home in names.values()} & set(names) == set()
