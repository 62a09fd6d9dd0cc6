"""`watch --budget`: its estimate is right, and its cost stays within the budget."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pagescan.model.memory import Mapping
from pagescan.target.process import Target as Process
from pagescan.tracking.sample import Budget
from pagescan.tracking.sampled import SampledTracking
from tests.conftest import Target, command

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
PAGES = 65536


def minor_faults(pid: int) -> int:
    """Return how often a page was faulted in, or a protection was lifted."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def everywhere(rng: random.Random) -> set[int]:
    return set(rng.sample(range(PAGES), 6000))


def in_few_places(rng: random.Random) -> set[int]:
    """Return all pages of 12 pieces of 2 MiB, and a few others."""
    return {*range(12 * 512), *rng.sample(range(PAGES), 100)}


@pytest.mark.parametrize(
    ("choose", "faults"), [(everywhere, 1500), (in_few_places, 3000)]
)
def test_estimate_holds_the_truth(
    target: Start, choose: Callable[[random.Random], set[int]], faults: int
) -> None:
    """Each look at a steady workload is compared with the full count and the faults.

    If intervals hold in 95 % of looks, fewer than 90 % of 200 hold once in 800 runs.
    """
    made = target(f"heap=anon,pages={PAGES},fill=1")
    rng = random.Random(5)
    held = looks = spent = 0
    with Process.open(made.pid) as process:
        tracking = SampledTracking.start_within(Budget(faults), process)
        for number in range(208):
            written = choose(rng)
            before = minor_faults(made.pid)
            made.write("heap", written)
            caused = minor_faults(made.pid) - before
            said = tracking.look(rearm=True).estimate
            if number < 8:  # it doubles its sample until it costs its budget
                continue
            spent += caused
            if (
                said is None
            ):  # few pages in one part, and all can be tracked in the next
                assert choose is in_few_places
                continue
            looks += 1
            held += said.low <= len(written) <= said.high
            if choose is everywhere:
                assert 0.05 < said.share < 0.5
                assert abs(said.pages - len(written)) < 3000
                # the factor is the variation in the number of drawn units of the heap
                assert caused <= 1.3 * faults
        tracking.close()
    assert held >= looks * 0.9, (held, looks)
    assert looks > 150
    assert spent <= 200 * faults


class Amid(SampledTracking):
    """Calls a function in the middle of each look."""

    def draw(
        self, population: list[Mapping], tracked: int, counts: Sequence[int]
    ) -> bool:
        self.amid()
        return super().draw(population, tracked, counts)

    @staticmethod
    def amid() -> None:
        """Run a function during the look."""


def test_nothing_is_lost_while_it_looks(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page stored to during a look is in that look, or in the next."""
    made = target(f"heap=anon,pages={PAGES},fill=1", "shared=shmem,pages=16384,fill=1")
    rng = random.Random(6)
    written = {name: everywhere(rng) for name in ("heap", "shared")}
    written["shared"] = {page // 4 for page in written["shared"]}

    def store() -> None:
        for name, pages in written.items():
            made.write(name, pages)

    with Process.open(made.pid) as process:
        tracking = Amid.start_within(Budget(3000), process)
        monkeypatch.setattr(tracking, "amid", store)
        for number in range(30):
            look = tracking.look(rearm=True)
            if number < 8 or look.estimate is None:
                continue
            truth = sum(map(len, written.values()))
            assert truth * 0.6 < look.estimate.pages < truth * 1.6
        tracking.close()


def test_memory_that_comes_is_counted(target: Start) -> None:
    """New memory is written when it appears and in no sample: it is counted in full."""
    made = target(
        f"heap=anon,pages={PAGES},fill=1",
        f"more=anon,pages={PAGES}",
        f"shared=shmem,pages={PAGES // 2}",
    )
    rng = random.Random(7)
    held = 0
    with Process.open(made.pid) as process:
        tracking = SampledTracking.start_within(Budget(1500), process)
        for number in range(60):
            written = {
                "heap": set(rng.sample(range(PAGES), 600)),
                "more": set(range(number * 1024, number * 1024 + 1000)),
                "shared": set(range(number * 512, number * 512 + 500)),
            }
            for name, pages in written.items():
                made.write(name, pages)
            look = tracking.look(rearm=True)
            truth = sum(map(len, written.values()))
            if look.estimate is None:
                held += look.batch.summary().pages >= truth
            else:
                held += look.estimate.low <= truth <= look.estimate.high
        tracking.close()
    assert held >= 54


@pytest.mark.parametrize("kind", ["anon", "shmem", "memfd"])
def test_memory_that_comes_is_exact_within_the_budget(target: Start, kind: str) -> None:
    """If all memory is tracked, new memory is exact, with its holes."""
    made = target(f"m={kind},pages=4096")
    low, high = made.ranges["m"]
    with Process.open(made.pid) as process:
        tracking = SampledTracking.start_within(Budget(1e9), process)
        for pages in ({7, 3000}, {7, 8}, {1, 4095}):
            made.write("m", pages)
            batch = tracking.look(rearm=True).batch
            assert pages == {
                (address - low) // 4096
                for start, end in zip(batch.starts, batch.ends, strict=True)
                for address in range(max(start, low), min(end, high), 4096)
            }
        tracking.close()


def test_holes_are_no_units(target: Start) -> None:
    """Each populated one of many neighbouring mappings is a unit, in order."""
    made = target("m=anon,pages=1024,fill=1")
    for page in range(31, 1024, 32):
        made.tell(f"munmap m {page}-{page}")
    low, high = made.ranges["m"]
    with Process.open(made.pid) as process:
        tracking = SampledTracking.start_within(Budget(600), process)
        for _ in range(3):
            units = tracking.inhabited(tracking.mappings.trackable())
            assert units == sorted(units)
            assert sum(low <= unit.start < high for unit in units) == 32
            said = tracking.look(rearm=True).estimate
            assert said is not None
            assert said[:2] == (0, 0)
        tracking.close()


def test_all_is_tracked_where_that_is_cheap(target: Start) -> None:
    """Within the budget nothing is estimated: the result is exact, page by page."""
    made = target("heap=anon,pages=2048,fill=1", "shared=shmem,pages=1024,fill=1")
    with Process.open(made.pid) as process:
        tracking = SampledTracking.start_within(Budget(1e6), process)
        for pages in ({1, 5, 2047}, {77}):
            made.write("heap", pages)
            made.write("shared", pages & set(range(1024)))
            look = tracking.look(rearm=True)
            assert look.estimate is None
            low, high = made.ranges["heap"]
            found = {
                (address - low) // 4096
                for start, end in zip(look.batch.starts, look.batch.ends, strict=True)
                for address in range(max(start, low), min(end, high), 4096)
            }
            assert found == pages
        tracking.close()


def test_output_says_estimated(target: Start) -> None:
    made = target(f"heap=anon,pages={PAGES},fill=1")
    words = ("watch", made.pid, "-i", "0.1", "-n", "3", "--budget", "0.2")
    lines = command(*words, "--json").stdout.splitlines()
    said = [json.loads(line)["estimated"] for line in lines]
    assert all(one and 0 < one["share"] < 1 for one in said)
    assert {one["confidence"] for one in said} == {0.95}
    result = command(*words)
    assert "pages written (estimated, " in result.stderr
    assert "% of the memory)" in result.stderr
    rows = "a row has what was found in the part of the memory that --budget tracks"
    assert rows in result.stderr
    assert rows in command(*words, "--csv").stderr
    assert rows not in command(*words[:-2]).stderr
    exact = command("watch", made.pid, "-i", "0.1", "-n", "1", "--json").json()
    assert exact["estimated"] is None
