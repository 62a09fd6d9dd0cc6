"""The examples of the docs and of the API reference run; 4242 is a live process."""

import ast
import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import HERE, Target

ROOT = HERE.parent
PAGES = (
    "README.md",
    "docs/guide.md",
    "docs/concepts.md",
    "docs/who.md",
    "docs/recordings.md",
)
REFERENCE = ROOT / "docs/api.md"
PYTHON = r"(?ms)^```python\n(.*?)^```$"
PYCON = r"(?ms)^```pycon\n(.*?)^```$"

pytestmark = pytest.mark.needs("tracking")


def python_blocks() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each Python block in the docs."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        for match in re.finditer(
            r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
        ):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{page}:{line}", match[1]


@pytest.fixture
def pid(target: Callable[..., Target]) -> str:
    return str(target("m=anon,pages=16").pid)


@pytest.mark.parametrize(("where", "code"), list(python_blocks()))
def test_python_of_the_docs(where: str, code: str, pid: str, tmp_path: Path) -> None:
    """Each block runs as a program of its own, or as tests if it has tests."""
    program = tmp_path / "test_block.py"
    program.write_text(code.replace("4242", pid))
    names = [
        node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)
    ]
    runner = ["-m", "pytest", "-q"] if any(n.startswith("test") for n in names) else []
    done = subprocess.run(
        [sys.executable, *runner, str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, (where, done.stdout, done.stderr)


def test_the_docs_have_python() -> None:
    """The docs have Python blocks; otherwise the test above would run nothing."""
    assert len(list(python_blocks())) >= 5


def reference_examples() -> list[doctest.DocTest]:
    """Return the examples of the API reference, by section."""
    parser = doctest.DocTestParser()
    sections = re.split(r"^### ", REFERENCE.read_text(), flags=re.MULTILINE)
    found = []
    for section in sections[1:]:
        code = "".join(re.findall(PYCON, section))
        if code:
            name = section.partition("\n")[0].strip("`")
            found.append(parser.get_doctest(code, {}, name, str(REFERENCE), 0))
    return found


@pytest.mark.parametrize("example", reference_examples(), ids=lambda test: test.name)
def test_examples_of_the_reference(
    example: doctest.DocTest,
    pid: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for one in example.examples:
        one.source = one.source.replace("4242", pid)
        one.want = one.want.replace("4242", pid)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)


def test_everything_public_is_in_the_reference() -> None:
    import pagescan

    text = REFERENCE.read_text()
    for name in pagescan.__all__:
        if name != "__version__":
            assert f"### `{name}`" in text, name


@pytest.mark.parametrize(
    "name", ["scan", "maps", "track", "written_pages", "Query", "Batch", "WriteWatch"]
)
def test_what_has_an_example(name: str) -> None:
    assert name in [example.name for example in reference_examples()]
