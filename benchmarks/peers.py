"""Compares other ways to look at a process: their time, and the target's stalls."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from benchmarks.measure import (
    GIB,
    MIB,
    Bench,
    Helper,
    Run,
    Unavailable,
    build,
    elapsed_ns,
    in_turn,
    run_checked,
    scratch,
)
from benchmarks.processes import pagescan, redis, session, target
from pagescan.native import Pace
from pagescan.session.delivery import look_at
from pagescan.session.lookup import find_session

_PSUTIL = (
    "import psutil, sys; psutil.Process(int(sys.argv[1])).memory_maps(grouped=False)"
)
_PAGE_TYPES = "page-types -N"
_LOOKED = 0.5  # seconds per tool and round


def run(bench: Bench) -> None:
    """Measure on a live redis, and on a target that times its own calls."""
    try:
        page_types()
    except Unavailable as why:
        bench.skip(_PAGE_TYPES, str(why))
    try:
        with redis(bench.redis_bytes) as server, session(server.pid):
            _costs(bench, server.pid, f"redis of {server.resident() / GIB:.1f} GiB")
    except Unavailable as why:
        bench.skip("peers on redis", str(why))
    size = (512 * MIB) if bench.quick else 4 * GIB
    with target(size) as made, session(made.pid):
        _delays(bench, made, f"{size / GIB:g} GiB")


def commands(pid: int) -> dict[str, list[str]]:
    """Return the commands that look at a process, by name."""
    found = {
        "pagescan diff --json": pagescan("diff", pid, "--json"),
        "pagescan maps --json": pagescan("maps", pid, "--json"),
        "pmap -X": ["pmap", "-X", str(pid)],
        "cat smaps": ["cat", f"/proc/{pid}/smaps"],
        "cat smaps_rollup": ["cat", f"/proc/{pid}/smaps_rollup"],
        "pagemap in C": [str(build("pagemap")), str(pid)],
        "pagemap in Python": [
            sys.executable,
            str(Path(__file__).with_name("pagemap.py")),
            str(pid),
        ],
    }
    if shutil.which("pmap") is None:
        del found["pmap -X"]
    python = _python_with_psutil()
    if python:
        found["psutil memory_maps"] = [python, "-c", _PSUTIL, str(pid)]
    with contextlib.suppress(Unavailable):
        # The least work it can do: it reads the flags of each page, and prints nothing.
        found[_PAGE_TYPES] = [page_types(), "-p", str(pid), "-N"]
    return found


@cache
def page_types() -> str:
    """Return a page-types of the kernel that works here: $PAGE_TYPES or of the PATH.

    Debian has no package of it; `make -C tools/mm page-types` builds it in a tree of
    the kernel's source. It needs root.
    """
    wanted = os.environ.get("PAGE_TYPES") or "page-types"
    program = shutil.which(wanted)
    if program is None:
        raise Unavailable(
            f"no program {wanted} (tools/mm of the kernel's source;"
            " PAGE_TYPES=/path/to/page-types names it)"
        )
    tried = subprocess.run(
        [program, "-p", str(os.getpid()), "-N"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        said = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
        raise Unavailable(f"does not run here: {said[-1]}")
    return program


def _python_with_psutil() -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        if Path(python).exists():
            words = [python, "-c", "import psutil"]
            if subprocess.run(words, capture_output=True, check=False).returncode == 0:
                return python
    return None


def _costs(bench: Bench, pid: int, whom: str) -> None:
    """Measure wall and processor time, of whole processes and of the look alone."""
    out = scratch() / "peer"
    runs: dict[str, list[Run]] = {}
    own: dict[str, list[float]] = {"C": [], "Python": []}

    def command(name: str, words: list[str]) -> float:
        done = run_checked(words, str(out))
        runs.setdefault(name, []).append(done)
        language = name.removeprefix("pagemap in ")
        if language in own:
            own[language].append(json.loads(out.read_text())["ns"] / 1e6)
        return done.wall * 1e3

    def look() -> float:
        found = find_session(pid)
        return elapsed_ns(lambda: look_at(found, rearm=False, pace=Pace())) / 1e6

    ways: dict[str, Callable[[], float]] = {
        name: partial(command, name, words) for name, words in commands(pid).items()
    }
    found = in_turn(bench.rounds(9), {**ways, "look": look})
    base = found["look"]
    bench.add("peers.look", f"{whom}: a look (diff, in a running process)", base, "ms")
    for name, key in (
        *((f"pagemap in {language}", language) for language in own),
        *((name, "") for name in ("pmap -X", "cat smaps", "cat smaps_rollup")),
        ("psutil memory_maps", ""),
        (_PAGE_TYPES, ""),
    ):
        if name not in found:
            if name != _PAGE_TYPES:  # run() has said why
                bench.skip(name, "not installed")
            continue
        bench.add(
            f"peers.{_key(name)}.look",
            f"{whom}: {name}" + (", its loop alone" if key else ", whole process"),
            own[key] if key else found[name],
            "ms",
            against="a look",
            base=base,
        )
    base = found["pagescan diff --json"]
    for name in ways:
        cpu = sum(one.cpu for one in runs[name]) / len(runs[name]) * 1e3
        ours = name.startswith("pagescan diff")
        bench.add(
            f"peers.{_key(name)}",
            f"{whom}: {name}, whole process",
            found[name],
            "ms",
            against=None if ours else "pagescan diff --json",
            base=None if ours else base,
            note=f"{cpu:.0f} ms of processor",
        )


def _delays(bench: Bench, made: Helper, size: str) -> None:
    """Measure the longest stall that the target itself sees during a look."""
    session_found = find_session(made.pid)

    def look() -> None:
        look_at(session_found, rearm=False, pace=Pace())

    ways: dict[str, Callable[[], object]] = {
        "nobody": lambda: time.sleep(_LOOKED),
        "a look (diff, in a running process)": look,
    }
    for name, words in commands(made.pid).items():
        ways[name] = partial(run_checked, words)
    raw: dict[str, list[float]] = {name: [] for name in ways}
    malloc: dict[str, list[float]] = {name: [] for name in ways}

    def worst(name: str) -> float:
        made.tell("churn")
        deadline = time.monotonic() + _LOOKED
        try:
            while True:
                ways[name]()
                if time.monotonic() >= deadline:
                    break
        finally:
            seen = made.tell("calm")
        raw[name].append(seen["max_ns"] / 1e6)
        malloc[name].append(seen["malloc_max_ns"] / 1e6)
        return float(seen["max_wait_ns"] / 1e6)

    found = in_turn(bench.rounds(7, 2), {name: partial(worst, name) for name in ways})
    for name, waits in found.items():
        rollup = "cat smaps_rollup"
        bench.add(
            f"delay.{_key(name)}",
            f"{size}, its worst mmap/munmap: {name}",
            waits,
            "ms",
            against=None if name == rollup else rollup,
            base=None if name == rollup else found[rollup],
            note=f"with waits for a processor {_middle(raw[name]):.2f} ms; "
            f"malloc {_middle(malloc[name]):.2f} ms; worst of all {max(waits):.2f} ms",
        )


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _key(name: str) -> str:
    short = name.removesuffix(" --json").removesuffix(" (diff, in a running process)")
    return short.replace("cat ", "").replace(" ", "-").lower()
