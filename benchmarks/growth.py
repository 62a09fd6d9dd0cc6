"""Counts the mappings that tracking adds to a target that grows from look to look.

Each look registers all new memory, or leaves out its growing end as every command does:
`docs/harmless.md` explains why.
"""

from pathlib import Path

from benchmarks.measure import MIB, Bench, Helper
from benchmarks.processes import target
from pagescan.target.process import Target
from pagescan.tracking.tracking import Tracking

_BLOCK, _BLOCKS = 64 << 10, 3  # bytes; before each look


class _Whole(Tracking):
    """A tracking that registers all new memory at each look."""

    leaves_growth_out = False


def run(bench: Bench) -> None:
    """Grow a heap, and mmap'ed memory, in both ways."""
    looks = bench.rounds(300, 30)
    for where in ("heap", "mmap"):
        ends, whole = _grown(Tracking, where, looks), _grown(_Whole, where, looks)
        names = {"tracked": "while it is tracked", "after": "afterwards"}
        for (key, when), count, base in zip(names.items(), ends, whole, strict=True):
            bench.add(
                f"growth.{where}.{key}",
                f"{where}, {looks} looks: more mappings {when}",
                count,
                "",
                against="its end is registered, too",
                base=base,
            )


def _grown(kind: type[Tracking], where: str, looks: int) -> tuple[int, int]:
    """Return the number of added mappings while it is tracked, and afterwards."""
    with target(MIB) as made:
        made.tell(f"grow {where} {_BLOCK}")
        before = _mappings(made)
        with Target.open(made.pid) as process, kind.start(process) as tracking:
            for _ in range(looks):
                for _ in range(_BLOCKS):
                    made.tell(f"grow {where} {_BLOCK}")
                tracking.look(rearm=True)
            tracked = _mappings(made)
        return tracked - before, _mappings(made) - before


def _mappings(made: Helper) -> int:
    return Path(f"/proc/{made.pid}/maps").read_text().count("\n")
