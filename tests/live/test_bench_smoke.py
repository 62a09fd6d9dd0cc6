"""The benchmarks run: no figure is judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks/run.py"


@pytest.mark.needs("tracking")
def test_a_quick_run_writes_all_its_figures(tmp_path: Path) -> None:
    """One subject; the file says where and what was measured."""
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [
            *(sys.executable, str(RUN), "--quick", "--size", "16"),
            *("--only", "startup", "--out", str(out)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert {"kernel", "cpu", "commit", "contract", "skipped"} <= result.keys()
    version = {one["key"]: one for one in result["figures"]}["startup.version"]
    assert version["value"] > 0
    assert version["ratio"] > 0
    assert version["samples"] == 11
    assert "pagescan --version" in done.stdout


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    """The names there are stand in the message."""
    done = subprocess.run(
        [sys.executable, RUN, "--only", "nothing", "--out", tmp_path / "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "startup" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.needs("tracking")
def test_write_watch_is_measured_beside_its_fallback(tmp_path: Path) -> None:
    """In C and in Python, at both sizes; nothing was left out."""
    out = tmp_path / "bench.json"
    words = ("--quick", "--only", "write_watch", "--out", str(out))
    subprocess.run([sys.executable, str(RUN), *words], capture_output=True, check=True)
    result = json.loads(out.read_text())
    keys = {one["key"] for one in result["figures"]}
    for pages in (1080, 8192):
        for way in ("c", "python", "fallback"):
            assert f"write_watch.{pages}.{way}.store" in keys
            assert f"write_watch.{pages}.{way}.get" in keys
    assert result["skipped"] == []
