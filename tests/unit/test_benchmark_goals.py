"""The verdict column of the speed table."""

from dataclasses import asdict

import pytest

from benchmarks import contract, run
from benchmarks.measure import Bench, Figure


@pytest.mark.parametrize(
    ("lost", "word"), [(0.5, "yes"), (2.5, "NO"), (0.0, "yes"), (-0.477, "-")]
)
def test_a_negative_loss_is_no_promise_kept(lost: float, word: str) -> None:
    """A negative loss is noise, and not a kept promise."""
    figure = Figure("throughput.defaults.1s.cpu", "redis", lost, "%", ratio=lost)
    bench = Bench(quick=True, redis_bytes=0, figures=[figure])
    [goal] = [goal for goal in contract.judged(bench) if goal.value is not None]
    assert goal.met_word == word
    assert ("noise" in goal.note) is (word == "-")
    facts = {"cpu": "", "cpus": 2, "kernel": "", "python": "", "commit": ""}
    table = run.markdown({"contract": [asdict(goal)], **facts})
    assert f" {word.lower().replace('-', '–')} |\n" in table
