"""Measures how long a million regions take to a file, per format."""

from pathlib import Path

from benchmarks.measure import GIB, MIB, PAGE, Bench, Unavailable, run_checked, scratch
from benchmarks.processes import memory_left, pagescan, session, target


def run(bench: Bench) -> None:
    """Measure every format with a mapping in which every second page is a region."""
    count = 100_000 if bench.quick else 1_000_000
    with target(MIB) as made:
        # Pages that were only read are the zero page, so these regions need no memory.
        read = made.tell(f"holes {2 * PAGE * count}")
        words = [made.pid, f"{read['start']:#x}-{read['end']:#x}"]
        for form in ("json", "jsonl", "csv"):
            command = pagescan("scan", *words, "--require", "present", f"--{form}")
            _measure(bench, f"scan.{form}", f"scan --{form}", command, count)
        if count * PAGE > memory_left() or memory_left() + bench.quick * GIB < 5 * GIB:
            bench.skip("a million written regions", "too little free memory")
            return
        try:
            with session(made.pid):
                made.tell(f"spots {2 * PAGE * count}")
                command = pagescan("diff", made.pid, "--json")
                _measure(bench, "diff.json", "diff --json", command, count)
        except Unavailable as why:
            bench.skip("a million written regions", str(why))


def _measure(bench: Bench, key: str, what: str, command: list[str], count: int) -> None:
    out = scratch() / "regions"
    runs = [run_checked(command, str(out)) for _ in range(bench.rounds(5))]
    lines = _regions(out)
    size = out.stat().st_size / 1e6
    out.unlink()
    note = f"{lines:,} regions, {size:.0f} MB, whole process"
    what = f"{count:,} regions: {what}"
    if lines < count:
        bench.skip(what, f"there were {lines} only")
        return
    bench.add(f"output.{key}", what, [one.wall for one in runs], "s", note=note)
    bench.add(f"output.{key}.cpu", f"{what}: processor", [one.cpu for one in runs], "s")
    peaks = [one.rss / 1e6 for one in runs]
    bench.add(f"output.{key}.rss", f"{what}: peak memory", peaks, "MB")


def _regions(out: Path) -> int:
    """Count the lines of a file, read in parts, so that this process stays small."""
    with out.open("rb") as stream:
        return sum(
            piece.count(b"\n") for piece in iter(lambda: stream.read(1 << 20), b"")
        )
