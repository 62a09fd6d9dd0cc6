"""The benchmarks run; no figure is judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import address_space, peers
from benchmarks.measure import Unavailable

RUN = Path(__file__).parents[2] / "benchmarks/run.py"


@pytest.mark.needs("tracking")
def test_a_quick_run_writes_all_its_figures(tmp_path: Path) -> None:
    """A quick run of one benchmark writes its figures with machine and commit."""
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
    """An unknown name is refused, and the message lists the names."""
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
def test_growth_is_counted(tmp_path: Path) -> None:
    """One mapping stays in heaps and in mmap'ed memory, or one for each look."""
    out = tmp_path / "bench.json"
    words = ("--quick", "--only", "growth", "--out", str(out))
    subprocess.run([sys.executable, str(RUN), *words], capture_output=True, check=True)
    figures = {one["key"]: one for one in json.loads(out.read_text())["figures"]}
    for where in ("heap", "mmap"):
        tracked = figures[f"growth.{where}.tracked"]
        after = figures[f"growth.{where}.after"]
        assert (tracked["value"], after["value"]) == (2, 1)
        assert after["base"] >= 30


@pytest.mark.needs("tracking")
def test_write_watch_is_measured_beside_its_fallback(tmp_path: Path) -> None:
    """It measures C and Python at both sizes, and leaves nothing out."""
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


@pytest.mark.needs("tracking")
def test_an_address_space_is_measured_beside_its_pages_alone(tmp_path: Path) -> None:
    """It measures mappings, holes and a reservation, and restores the limit."""
    limit = Path("/proc/sys/vm/max_map_count")
    before = limit.read_text()
    out = tmp_path / "bench.json"
    words = ("--quick", "--only", "address_space", "--out", str(out))
    subprocess.run([sys.executable, str(RUN), *words], capture_output=True, check=True)
    result = json.loads(out.read_text())
    figures = {one["key"]: one for one in result["figures"]}
    for case in ("mappings", "sparse", "reserved"):
        for part in ("look", "look.unpaced", "ioctls", "rss"):
            figure = figures[f"address_space.{case}.{part}"]
            assert figure["value"] > 0
            assert figure["base"] > 0
    assert result["skipped"] == []
    assert limit.read_text() == before


@pytest.mark.needs("tracking")
@pytest.mark.timeout(180)
def test_a_stop_is_measured_while_pagescan_cannot_run(tmp_path: Path) -> None:
    """Each way to hold pagescan up has its figure, or a reason why it was left out."""
    out = tmp_path / "bench.json"
    words = ("--quick", "--only", "busy", "--out", str(out))
    subprocess.run([sys.executable, str(RUN), *words], capture_output=True, check=True)
    result = json.loads(out.read_text())
    figures = {one["key"]: one["value"] for one in result["figures"]}
    for name in ("stop.p50", "stop.p99", "stop.max", "not", "stop", "host"):
        assert figures[f"busy.{name}"] > 0
    ways = sum(not key.startswith("busy.stop.") for key in figures)
    assert ways + len(result["skipped"]) == 6


def test_the_limit_of_mappings_is_as_before_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is raised for the block alone, and only if it is too low."""
    limit = tmp_path / "max_map_count"
    limit.write_text("65530\n")
    monkeypatch.setattr(address_space, "MAX_MAP_COUNT", limit)
    with address_space.room_for(65530):
        assert limit.read_text() == "65530\n"

    def fail() -> None:
        with address_space.room_for(101_000):
            assert limit.read_text() == "101000\n"
            raise Unavailable("the target could not map")

    with pytest.raises(Unavailable):
        fail()
    assert limit.read_text() == "65530\n"


def test_a_limit_that_may_not_be_raised_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is measured if the limit of mappings may not be raised."""
    constant = Path("/proc/sys/kernel/ngroups_max")  # even root may not write it
    monkeypatch.setattr(address_space, "MAX_MAP_COUNT", constant)
    with (
        pytest.raises(Unavailable, match="may not be raised"),
        address_space.room_for(1 << 30),
    ):
        pass


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (None, "no program "),
        ("echo not for you >&2; exit 1", "does not run here: not for you"),
        ("exit 3", "does not run here: exit code 3"),
        ("exit 0", None),
    ],
)
def test_page_types_is_a_peer_where_it_works(
    script: str | None,
    why: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it does not work it is left out with a reason; the others remain."""
    program = tmp_path / "page-types"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PAGE_TYPES", str(program))
    peers.page_types.cache_clear()
    if why is None:
        assert peers.page_types() == str(program)
    else:
        with pytest.raises(Unavailable, match=why):
            peers.page_types()
    assert "pagescan diff --json" in peers.commands(1)
    assert ("page-types -N" in peers.commands(1)) is (why is None)
    peers.page_types.cache_clear()
