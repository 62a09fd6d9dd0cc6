"""A shim that is older than the Python files, missing or damaged is named."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pagescan import native
from tests.conftest import HERE

PACKAGE = HERE.parent / "pagescan"
pytestmark = pytest.mark.skipif(
    not (PACKAGE / "native/shim.h").exists(), reason="not in a source tree"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a source tree of its own, with the present shim."""
    shutil.copytree(
        PACKAGE, tmp_path / "pagescan", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def run(tree: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the pagescan of a tree."""
    return subprocess.run(
        [sys.executable, "-m", "pagescan", *words],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        check=False,
    )


def shim_of(tree: Path) -> Path:
    """Return the shim of a tree."""
    return tree / "pagescan/native" / Path(native.library()).name


def after_git_pull(tree: Path) -> None:
    """Change a header, as `git pull` does; nothing is compiled."""
    header = tree / "pagescan/native/shim.h"
    header.write_text(header.read_text() + "int ps_new_function(void);\n")


def without_shim(tree: Path) -> None:
    """Remove the shim, as in a clone that nobody has built."""
    shim_of(tree).unlink()


def with_half_a_shim(tree: Path) -> None:
    """Damage the shim."""
    shim_of(tree).write_bytes(shim_of(tree).read_bytes()[:100])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (after_git_pull, "is older than its other files"),
        (without_shim, "is missing"),
        (with_half_a_shim, "cannot be loaded: "),
    ],
)
def test_useless_shim(change: Callable[[Path], None], why: str, copy: Path) -> None:
    """One line names the cause, one the remedy; no report of a bug is asked for."""
    assert run(copy, "maps", str(os.getpid())).returncode == 0
    change(copy)
    done = run(copy, "maps", str(os.getpid()))
    assert done.returncode == 1
    assert done.stdout == ""
    message, hint = done.stderr.splitlines()
    assert message.startswith(f"pagescan: the compiled part of pagescan {why}")
    assert hint == f"hint: make -C {copy} dev"
    assert run(copy, "changed", str(os.getpid())).returncode == 2
    said = json.loads(run(copy, "scan", "1", "--json").stderr)
    assert (said["code"], said["hint"]) == (1, f"make -C {copy} dev")


def test_a_wheel_has_no_header(copy: Path) -> None:
    """Where there are no sources, the remedy is another installation."""
    (copy / "pagescan/native/shim.h").unlink()
    assert run(copy, "maps", str(os.getpid())).returncode == 0
    without_shim(copy)
    done = run(copy, "maps", str(os.getpid()))
    assert "hint: pip install --force-reinstall pagescan" in done.stderr
