"""The files of the shim call each other in one direction: there is no circle."""

import graphlib
import re
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "pagescan" / "native"
_COMMENT = re.compile(r"/\*.*?\*/|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_DEFINED = re.compile(r"^(?!static)\w[\w ]*[ *](p\w+)\([^;{]*\)\n\{", re.MULTILINE)
_NAME = re.compile(r"\bp(?:s|agescan)_\w+(?=\()")


def calls(directory: Path) -> dict[str, set[str]]:
    """Return for each file the others whose functions it names."""
    texts = {
        path.name: _COMMENT.sub("", path.read_text())
        for path in directory.glob("shim_*.c")
    }
    home = {
        name: file for file, text in texts.items() for name in _DEFINED.findall(text)
    }
    return {
        file: {home[name] for name in _NAME.findall(text) if name in home} - {file}
        for file, text in texts.items()
    }


def test_no_file_calls_back() -> None:
    graph = calls(NATIVE)
    assert sum(map(len, graph.values())) > 20, graph
    assert "shim_probe.c" in graph["shim_scan.c"]
    list(graphlib.TopologicalSorter(graph).static_order())


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "shim_one.c").write_text(
        "int ps_one(int a)\n{\n\treturn ps_two(a);\n}\n"
    )
    (tmp_path / "shim_two.c").write_text(
        "int ps_two(int a)\n{\n\treturn ps_one(a);\n}\n"
    )
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(calls(tmp_path)).static_order())
