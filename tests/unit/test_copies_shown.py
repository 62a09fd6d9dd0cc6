"""The table and the sentences of `cow`, from records."""

import io
import os
from datetime import UTC, datetime

import pytest

from pagescan import native
from pagescan.attribution.forks import Fork
from pagescan.commands.cow import end_lines, fork_lines
from pagescan.model.copies import (
    Copies,
    CopyReport,
    ForkCopies,
    ProcessCopies,
    SideCopies,
)
from pagescan.model.results import Output, TargetFacts
from pagescan.render.copies import write_copies

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def family(children: int) -> CopyReport:
    """Return a report of a parent and its children."""
    facts = TargetFacts(100, "postgres", None, 1, 4096)
    rows = [ProcessCopies("postgres", 100, "parent", None, 500, 0, 0, 0.0, None)]
    rows += [
        ProcessCopies("postgres", 101 + at, "child", 4000.0, 500, 60, 0, 0.0, None)
        for at in range(children)
    ]
    return CopyReport(NOW, facts, 1, 10**9, tuple(rows), ())


def by_mapping() -> CopyReport:
    """Return a report of one fork whose sides have mappings with and without labels."""
    rows = (
        Copies(3, 0.5, mapping="[anon]", label="[stack of jemalloc_bg_thd 19451]"),
        Copies(3, 0.5, mapping="/usr/lib/x86_64-linux-gnu/libc.so.6"),
    )
    sides = (SideCopies(1, "parent", 6, 0, rows), SideCopies(2, "child", 0, 0))
    one = ForkCopies(1, NOW, 1, 2, 9, 8, sides, 0, "state", 1.0, None)
    return CopyReport(NOW, None, 1, 10**9, (), (one,))


def test_a_mapping_is_named_in_a_narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its label, where it has one; in a pipe both have a column."""
    size = os.terminal_size((80, 24))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: size)
    stream = io.StringIO()
    write_copies(by_mapping(), Output(format="table", by="mapping"), stream)
    head, labelled, plain = stream.getvalue().splitlines()[:3]
    assert head.split() == ["pages", "bytes", "share", "fork", "role", "pid", "mapping"]
    assert " [stack of …" in labelled
    assert labelled.endswith("bg_thd 19451]")
    assert plain.endswith("libc.so.6")
    stream = io.StringIO()
    write_copies(by_mapping(), Output(format="plain", by="mapping"), stream)
    assert stream.getvalue().splitlines()[1].split()[-2:] == ["19451]", "[anon]"]


def test_copies_of_before_are_said_to_be_in_no_row() -> None:
    """Two of the eight copies were made before: nothing tells their mapping."""
    said = (
        "no row has the copies made before pagescan began: their mapping is not known"
    )
    assert end_lines(by_mapping(), Output(format="table", by="mapping")) == [said]
    assert end_lines(by_mapping(), Output(format="table", by="process")) == []


def test_the_highest_rate_is_no_less_than_the_average() -> None:
    """A fork that lived for half an interval copied at twice the interval's rate."""
    one = Fork(1, 500_000_000, 1, 2, native.Columns.empty())
    one.parent.copied = 100
    one.look(1_000_000_000, 1.0)
    assert one.peak == 200
    one.parent.copied += 300
    one.finish(1_250_000_000, "exited")
    one.look(2_000_000_000, 1.0)
    assert one.peak == 400 / 0.75


def test_a_moment_at_the_beginning_has_no_rate_of_its_own() -> None:
    """A child writes a burst as it begins: that is no rate for the whole fork."""
    one = Fork(1, 999_000_000, 1, 2, native.Columns.empty())
    one.child.copied = 100
    one.look(1_000_000_000, 1.0)
    assert one.peak == 0
    one.look(2_000_000_000, 1.0)
    assert one.peak == 100 / 1.001


def fork(number: int, copied: int) -> ForkCopies:
    """Return a fork that has ended."""
    sides = (SideCopies(1, "parent", copied, 0), SideCopies(2, "child", 0, 0))
    return ForkCopies(
        number, NOW, 1, 2, 9, copied, sides, 0, "perf", 1.0, "exited", peak_rate=1.0
    )


@pytest.mark.parametrize("lines", [3, 8, 24])
@pytest.mark.parametrize("columns", [40, 80])
def test_a_window_holds_the_table(
    monkeypatch: pytest.MonkeyPatch, lines: int, columns: int
) -> None:
    """Head, rows, the number of hidden rows and the units; no line is too long."""
    size = os.terminal_size((columns, lines))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: size)
    stream = io.StringIO()
    count = write_copies(family(40), Output(format="table", by="process"), stream)
    shown = stream.getvalue().splitlines()
    assert count == len(shown)
    assert len(shown) <= max(lines, 6) - 1
    assert max(map(len, shown)) <= columns
    assert shown[0].startswith("process")
    hidden = 41 - (len(shown) - 3)
    assert shown[-2] == f"… {hidden} more (a pipe shows all)"
    assert shown[-1].startswith("age: since")
    if columns == 80:
        assert "67 min" in shown[2]


def test_a_pipe_has_every_row_and_plain_seconds() -> None:
    stream = io.StringIO()
    write_copies(family(40), Output(format="plain", by="process"), stream)
    shown = stream.getvalue().splitlines()
    assert len(shown) == 42
    assert "4000.0" in shown[2]


def test_many_forks_have_few_sentences() -> None:
    """The largest three have one each, and the others one together."""
    forks = [fork(number, copied=number * 10) for number in range(1, 10)]
    lines = fork_lines(forks)
    assert [line.partition(" of")[0] for line in lines[:3]] == [
        "fork #7",
        "fork #8",
        "fork #9",
    ]
    assert lines[3] == "6 more forks: 210 pages (840 KiB) copied, 9 forks in all"
    assert len(fork_lines(forks[:4])) == 4
    assert "reserve 360 KiB for such a fork" in lines[2]
