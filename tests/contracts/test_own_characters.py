"""Characters that pagescan prints of its own, on terminals that lack them."""

import ast
from pathlib import Path

import pagescan
from pagescan.console.streams import _INSTEAD

_FOLDER = Path(pagescan.__file__).parent


def _texts(path: Path) -> list[str]:
    """Return the texts of a module, without docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in alone
    ]


def test_each_has_a_replacement_of_its_width() -> None:
    """Without one, an escape of six characters would shift its line."""
    found = {
        char
        for path in _FOLDER.rglob("*.py")
        for text in _texts(path)
        for char in text
        if not char.isascii()
    }
    assert found >= set("▁█…▸▾⏎")
    assert found <= set(_INSTEAD)
    assert all(len(char) == 1 and char.isascii() for char in _INSTEAD.values())


def test_what_a_cell_may_show_stays_distinct() -> None:
    """No share of pages looks like memory that was not written, or is unmapped."""
    cells = "▁▂▃▄▅▆▇█·┄"
    assert len({_INSTEAD[char] for char in cells}) == len(cells)
