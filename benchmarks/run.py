#!/usr/bin/env python3
"""Runs the benchmarks: one command, a table, and a JSON file with all figures.

Every figure is a ratio within one run: both sides are measured in turn on the same
machine, and medians are shown. No benchmark fails because of a timing.
"""

import argparse
import compileall
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
os.environ["PYTHONPATH"] = str(ROOT)  # `python -m pagescan` is this tree's
# Measure what an installed package has: compiled files, and a buffered stdout.
for _word in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
    os.environ.pop(_word, None)

from benchmarks.contract import Goal, judged  # noqa: E402 - needs the path
from benchmarks.measure import MIB, Bench, Figure, Unavailable, document  # noqa: E402

SUBJECTS = {
    "startup": "start-up, beside python -c 'import click'",
    "scan_cost": "a look, beside the bare ioctl in C",
    "methods": "the methods of tracking, beside each other",
    "peers": "other tools: time, and the target's worst delay",
    "stalls": "what each command makes the target's own mmap wait",
    "attach_stop": "the stop of an attach",
    "busy": "that stop where pagescan does not get on",
    "output": "a million regions",
    "throughput": "what redis loses to watch",
    "target_share": "what watch costs a target, beside what it says",
    "write_watch": "WriteWatch, beside mprotect and SIGSEGV",
    "scaling": "64 MiB to 16 GiB, one thread and two",
    "address_space": "many mappings, holes, a reservation",
    "growth": "the mappings that stay where memory grows",
    "groups": "200 quiet processes: watch and exporter, beside smaps of each",
    "recordings": "a recording of a day: report, page and diff, beside a plain read",
    "region_lists": "the algebra of region lists, beside plain Python",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the selected benchmarks; print the table and write the file."""
    options = parse(words)
    if options.markdown:
        print(markdown(json.loads(options.markdown.read_text())), end="")
        return 0
    compileall.compile_dir(ROOT / "pagescan", quiet=2)
    begun = time.monotonic()
    bench = Bench(options.quick, options.size, report=lambda line: say(f"  {line}"))
    facts = machine(quick=options.quick)
    say(f"pagescan benchmarks: {facts['cpu']}, {facts['cpus']} CPUs, {facts['kernel']}")
    parts: dict[str, list[Figure]] = {}
    for name in options.only:
        before, at = len(bench.figures), time.monotonic()
        say(f"{name}: {SUBJECTS[name]} …")
        try:
            importlib.import_module(f"benchmarks.{name}").run(bench)
        except Unavailable as why:
            bench.skip(name, str(why))
        parts[name] = bench.figures[before:]
        say(f"  {time.monotonic() - at:.0f} s")
    goals = judged(bench)
    show(parts, goals, bench.skipped)
    facts["seconds"] = round(time.monotonic() - begun, 1)
    result = document(bench, **facts, contract=[vars(goal) for goal in goals])
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    say(f"all figures are in {options.out}; it took {facts['seconds']:.0f} s")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    listed = "\n".join(f"  {name:13} {what}" for name, what in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=__doc__.splitlines()[0],
        epilog=f"names:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small, under a minute")
    parser.add_argument(
        "--only", metavar="NAME[,NAME]", type=_names, default=list(SUBJECTS)
    )
    parser.add_argument(
        "--size", metavar="MIB", type=int, help="of redis (2048; quick: 256)"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the JSON file (bench.json)"
    )
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        type=Path,
        help="measure nothing: print the contract of a JSON file as README.md has it",
    )
    options = parser.parse_args(words)
    options.size = (options.size or (256 if options.quick else 2048)) * MIB
    options.out = options.out or Path("bench.json")
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SUBJECTS:
            raise argparse.ArgumentTypeError(
                f"no such benchmark: {name} (choose from {', '.join(SUBJECTS)})"
            )
    return names


def machine(*, quick: bool) -> dict[str, Any]:
    """Return the facts of this machine that the figures depend on."""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "schema": "pagescan-bench/1",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "kernel": platform.release(),
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": memory,
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "quick": quick,
    }


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def say(line: str) -> None:
    """Print the progress of the run."""
    print(line, file=sys.stderr, flush=True)


# ---- the table ---------------------------------------------------------------------


def show(
    parts: dict[str, list[Figure]], goals: Iterable[Goal], skipped: Iterable[str]
) -> None:
    """Print all figures, the promises last."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)

    def put(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, justify="left" if column in _TEXT else "right")
        table.add_column("note", style="dim", overflow="fold")
        for cells in rows:
            table.add_row(*cells)
        if rows:
            console.print(table)

    for name, figures in parts.items():
        put(f"{name}: {SUBJECTS[name]}", _COLUMNS, [row(one) for one in figures])
    put(
        "contract",
        ("what", "goal", "measured", "met"),
        [
            (one.what, one.goal, one.measured, one.met_word, one.note)
            for one in goals
            if one.value is not None
        ],
    )
    for line in skipped:
        console.print(f"left out: {line}", markup=False)


def markdown(result: dict[str, Any]) -> str:
    """Return the promises and their results in a run as a table for README.md."""
    lines = [
        "| what | goal | measured | met |",
        "|---|---|---|---|",
        *(
            f"| {one['what']} | {_sign(one['goal'])} | {_sign(one['measured'])} |"
            f" {_MET[one['met']]} |"
            for one in result["contract"]
            if one["value"] is not None
        ),
        "",
        f"{result['cpu']}, {result['cpus']} CPUs, Linux {result['kernel']},"
        f" Python {result['python']}, commit {str(result['commit'])[:12]}.",
    ]
    return "\n".join(lines) + "\n"


_MET = {True: "yes", False: "no", None: "–"}


def _sign(text: str) -> str:
    return text.replace("<=", "≤").replace(">=", "≥").replace(" x", "×")


_COLUMNS = ("what", "median", "quartiles", "against", "its median", "ratio")
_TEXT = {"what", "against", "met"}


def row(one: Figure) -> list[str]:
    """Return a figure as the table shows it."""
    spread = ""
    if one.low is not None and one.high is not None:
        spread = f"{number(one.low)}–{number(one.high)}"
    return [
        one.what,
        f"{number(one.value)} {one.unit}",
        spread,
        one.against or "",
        f"{number(one.base)} {one.unit}" if one.base is not None else "",
        f"{number(one.ratio)} x" if one.ratio is not None else "",
        one.note,
    ]


def number(value: float) -> str:
    """Return a number as text with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
