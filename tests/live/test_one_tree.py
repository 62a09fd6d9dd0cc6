"""A name that only the processes of one tree have: --tree takes all of them."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagescan.model.errors import TargetError
from pagescan.target.find import find_pid, named_processes
from tests import witness
from tests.conftest import command


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with two children of its own name, one of them below a shell."""
    path = tmp_path / "pst-tree"
    shutil.copy(os.path.realpath("/bin/sh"), path)
    child = f"{path} -c 'sleep 1000; :'"
    words = [str(path), "-c", f'{child} & sh -c "{child}; :" & wait']
    process = subprocess.Popen(words, start_new_session=True)
    witness.wait_for(
        lambda: sum("pst-tree" in one.names for one in named_processes()) == 3
    )
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_candidates_of_one_tree(tree: subprocess.Popen[bytes]) -> None:
    """The hint offers --tree, and with it the name is not ambiguous."""
    for words in (["maps"], ["watch", "-n", "1"], ["arm"], ["who"], ["cow"], ["diff"]):
        hint = command(*words, "pst-tree").stderr.splitlines()[-1]
        assert hint == (
            f"hint: they are one tree: --tree takes all of them, --oldest only"
            f" {tree.pid}"
        )
    for words in (["changed"], ["dump-plan"]):  # they take no --tree
        hint = command(*words, "pst-tree").stderr.splitlines()[-1]
        assert "--tree" not in hint
        assert f"the oldest, {tree.pid}, with --oldest" in hint
    document = command("maps", "--tree", "pst-tree", "--json").json()
    assert document["group"]["name"] == str(tree.pid)
    with pytest.raises(TargetError) as caught:
        find_pid("pst-tree")
    assert caught.value.hint == "give the pid of one of them"


def test_a_name_that_is_nearly_right(tree: subprocess.Popen[bytes]) -> None:
    """The name that was meant is offered; a pattern is an option of its own."""
    for name in ("pst-tre", "PST-Tree", "pst-teee"):
        result = command("changed", name)
        line, hint = result.stderr.splitlines()
        assert (result.code, line) == (3, f"pagescan: no process is named {name!r}")
        assert hint == "hint: did you mean 'pst-tree'?"
    hint = command("maps", "pst-tr*").stderr.splitlines()[-1]
    assert hint == "hint: a name has no wildcards: did you mean --match 'pst-tr'?"
    hint = command("pst-tree").stderr.splitlines()[-1]
    assert hint == "hint: did you mean pagescan watch pst-tree?"
    assert tree.poll() is None
