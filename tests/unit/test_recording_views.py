"""The views of recordings against workloads whose truth is known."""

import random
from pathlib import Path

import pytest

from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Output
from pagescan.model.units import format_size
from pagescan.recording import views
from pagescan.recording.compare import compare
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.records import BILLION
from pagescan.recording.store import open_recording
from pagescan.render import report_text
from pagescan.target.selection import Selection
from tests.synthetic import (
    PAGE,
    Made,
    look_of,
    mapping,
    some_pages,
)

HEAP = mapping(0x5555_0000_0000, 1000, "[heap]")
ANON = mapping(0x7F00_0000_0000, 4000)
MAPPINGS = MappingSet([HEAP, ANON])


def page(one: object, at: int) -> int:
    """Return the address of a page of a mapping."""
    return one.start + at * PAGE  # type: ignore[attr-defined, no-any-return]


def excerpt_of(made: Made) -> Excerpt:
    """End a recording, and return all of it."""
    return Excerpt(open_recording(made.close()))


# ---- counts per look ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("pages", "words"), [(0, "no change"), (1, "+4.0 KiB"), (-3, "-12.0 KiB")]
)
def test_resident_memory_in_words(
    pages: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory that is as large as at the beginning has not changed by minus 0 bytes."""
    made = Made(tmp_path / "a", MAPPINGS, interval=0.5)
    for more in (0, 0, pages):
        made.look([page(HEAP, 0)], resident=(100 + more) * PAGE)
    excerpt = excerpt_of(made)
    report_text.write_summary(
        ["x"], excerpt.recording.facts, views.summary(excerpt), PAGE, Output("plain")
    )
    size = format_size((100 + pages) * PAGE)
    line = f"resident  {size} at the end ({words} since the beginning)\n"
    assert line in capsys.readouterr().out


def test_where_nothing_was_written_there_are_no_empty_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The totals say so already."""
    made = Made(tmp_path / "a", MAPPINGS)
    for _ in range(3):
        made.look([], resident=PAGE)
    excerpt = excerpt_of(made)
    report_text.write_summary(
        ["x"], excerpt.recording.facts, views.summary(excerpt), PAGE, Output("plain")
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["written", "0", "B,"]
    assert lines[-1].startswith("cost ")


def test_totals_and_mappings(tmp_path: Path) -> None:
    made = Made(tmp_path / "a", MAPPINGS, interval=0.5)
    for at in range(20):
        heap = [page(HEAP, n) for n in range(10)]
        anon = [page(ANON, n) for n in range(30)] if at % 2 else []
        made.look([*heap, *anon], resident=(100 + at) * PAGE)
    result = views.summary(excerpt_of(made))
    assert result.looks == 20
    assert result.seconds == pytest.approx(10)
    assert result.gaps == pytest.approx(0)
    assert result.pages == 20 * 10 + 10 * 30
    assert result.bytes == result.pages * PAGE
    assert result.rate == pytest.approx(result.bytes / 10)
    assert result.peak == 40 * PAGE / 0.5
    assert result.resident == (100 * PAGE, 119 * PAGE)
    first, second = result.mappings
    assert (first.mapping, first.pages, first.looks) == ("[anon]", 300, 10)
    assert (second.mapping, second.pages, second.looks) == ("[heap]", 200, 20)
    assert second.share == pytest.approx(0.4)
    assert first.peak == 30 * PAGE / 0.5
    assert result.cost.ioctls == 20 * 3
    assert result.cost.stopped_ns == 200_000
    assert result.cost.target_share == pytest.approx(0.01)


def test_timeline_has_all_pages_once(tmp_path: Path) -> None:
    rolled = random.Random(2)
    made = Made(tmp_path / "a", MAPPINGS)
    for _ in range(137):
        made.look(some_pages(rolled, ANON, rolled.randrange(100)))
    excerpt = excerpt_of(made)
    rows = views.timeline(excerpt, 20)
    assert len(rows) == 20
    assert sum(row.pages for row in rows) == sum(map(len, made.written))
    assert sum(row.looks for row in rows) == 137
    assert sum(row.seconds for row in rows) == pytest.approx(137)
    assert rows.table()["rate"] == [row.rate for row in rows]
    assert len(views.timeline(excerpt, 500)) == 137


def test_a_slot_within_a_long_interval_has_its_rate(tmp_path: Path) -> None:
    """A look that comes late leaves no hole, as if nothing was written."""
    made = Made(tmp_path / "a", MAPPINGS)
    pages = some_pages(random.Random(2), ANON, 40)
    for number, (second, interval) in enumerate(
        [(1, 1), (2, 1), (3, 1), (7, 4), (8, 1), (20, 1)], 1
    ):
        made.file.add(0, number, interval, look_of(pages, MAPPINGS, second=second))
    rows = views.timeline(excerpt_of(made), 20)
    assert [row.looks for row in rows] == [3, 1, 1, 0, 0, 1]
    rows = views.timeline(Excerpt(open_recording(str(made.path))), 20)
    rates = [round(row.rate / PAGE) for row in rows]
    assert rates == [40, 10, 40, 0, 0, 40]


def test_phases_of_a_known_course(tmp_path: Path) -> None:
    """Idle, a fill, a steady churn, and another mapping at the same rate."""
    rolled = random.Random(4)
    made = Made(tmp_path / "a", MAPPINGS)
    course = [(30, HEAP, 2), (20, ANON, 800), (50, ANON, 200), (40, HEAP, 200)]
    for looks, where, pages in course:
        for _ in range(looks):
            made.look(
                some_pages(rolled, where, round(pages * rolled.uniform(0.9, 1.1)))
            )
    rows = views.phases(excerpt_of(made))
    assert [row.looks for row in rows] == [30, 20, 50, 40]
    assert [row.mapping for row in rows] == ["[heap]", "[anon]", "[anon]", "[heap]"]
    assert [round(row.rate / PAGE, -1) for row in rows[1:3]] == [
        pytest.approx(800, rel=0.1),
        pytest.approx(200, rel=0.1),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_one_phase(tmp_path: Path, seed: int) -> None:
    rolled = random.Random(seed)
    made = Made(tmp_path / "a", MAPPINGS)
    for _ in range(200):
        made.look(some_pages(rolled, ANON, rolled.randrange(100, 300)))
    assert len(views.phases(excerpt_of(made))) == 1


# ---- pages -------------------------------------------------------------------------


def test_ages_of_a_known_workload(tmp_path: Path) -> None:
    """Pages written once, in every look, in every fifth look, and a heap that grows."""
    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(50):
        grown = mapping(HEAP.start, 1000 + 10 * at, "[heap]")
        once = [page(grown, 1000 + 10 * at - 1)]  # a page at the growing end
        always = [page(ANON, n) for n in range(100)]
        rarely = [page(ANON, n) for n in range(500, 530)] if at % 5 == 0 else []
        made.mappings = MappingSet([grown, ANON])
        made.look([*once, *always, *rarely])
    anon, heap = views.ages(excerpt_of(made))
    assert anon.mapping == "[anon]"
    assert (anon.written, anon.once) == (130 * PAGE, 0)
    assert (anon.always, anon.sometimes) == (100 * PAGE, 30 * PAGE)
    assert (heap.written, heap.once, heap.always) == (50 * PAGE, 50 * PAGE, 0)
    assert heap.growth == 490 * PAGE
    assert anon.growth == 0
    assert heap.bytes == 1490 * PAGE


@pytest.mark.parametrize("seed", range(4))
def test_working_set_is_the_mean_of_all_windows(tmp_path: Path, seed: int) -> None:
    rolled = random.Random(seed)
    made = Made(tmp_path / "a", MAPPINGS)
    for _ in range(30):
        made.look(
            sorted({*some_pages(rolled, HEAP, 40), *some_pages(rolled, ANON, 30)})
        )
    rows = views.working_set(excerpt_of(made))
    assert [row.looks for row in rows] == [1, 2, 5, 10, 20, 30]
    for row in rows:
        windows = [
            len(set().union(*made.written[at : at + row.looks]))
            for at in range(30 - row.looks + 1)
        ]
        mean = sum(windows) / len(windows)
        assert row.bytes == pytest.approx(mean * PAGE, abs=1)
        assert row.seconds == pytest.approx(row.looks)
    assert rows[-1].share == pytest.approx(1)


def test_heatmap_of_a_moving_front(tmp_path: Path) -> None:
    """A front that moves through memory is a diagonal; the rest is empty."""
    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(40):
        made.look([page(ANON, at * 100 + n) for n in range(100)])
    rows = views.heatmap(excerpt_of(made), slots=10, rows=10)
    assert len(rows) == 10
    assert sum(row.pages for row in rows) == 4000
    for at, row in enumerate(rows):
        expected = [0.25 if slot == at else 0 for slot in range(10)]
        assert row.shares == pytest.approx(expected)


def test_every_written_mapping_has_a_row(tmp_path: Path) -> None:
    made = Made(tmp_path / "a", MAPPINGS)
    for _ in range(5):
        made.look([page(HEAP, 3), *(page(ANON, n) for n in range(4000))])
    rows = views.heatmap(excerpt_of(made), rows=6)
    assert {row.mapping for row in rows} == {"[heap]", "[anon]"}
    assert len(rows) <= 6
    assert [row.shares for row in rows if row.mapping == "[heap]"] == [[1.0] * 5]


# ---- migration ---------------------------------------------------------------------


def test_migration_of_a_fixed_set(tmp_path: Path) -> None:
    """The same pages all the time: round 2 and all after it send just these."""
    made = Made(tmp_path / "a", MAPPINGS)
    hot = [page(ANON, n) for n in range(1000)]
    for _ in range(60):
        made.look(hot, resident=4000 * PAGE)
    excerpt = excerpt_of(made)
    slow = views.migration(excerpt, bandwidth=400 * PAGE, downtime=0.3)
    assert slow.rounds[0].bytes == slow.memory == 4000 * PAGE
    assert slow.rounds[0].seconds == pytest.approx(10)
    assert slow.rounds[1].bytes == 1000 * PAGE
    assert not slow.converges
    assert slow.freeze == pytest.approx(2.5)
    assert slow.sent == sum(row.bytes for row in slow.rounds) + 1000 * PAGE
    fast = views.migration(excerpt, bandwidth=4000 * PAGE, downtime=0.3)
    assert fast.converges
    assert fast.freeze == pytest.approx(0.25)
    assert len(fast.rounds) == 1
    (last,) = fast.last
    assert (last.start, last.bytes) == (ANON.start, 1000 * PAGE)


def test_migration_of_a_stream(tmp_path: Path) -> None:
    """Other pages all the time, at a rate R: each round is R/B of the one before."""
    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(200):
        made.look(
            sorted(page(ANON, (at * 100 + n) % 4000) for n in range(100)),
            resident=4000 * PAGE,
        )
    result = views.migration(excerpt_of(made), bandwidth=400 * PAGE, downtime=0.1)
    assert result.converges
    for one, other in zip(result.rounds, result.rounds[1:], strict=False):
        assert other.bytes == pytest.approx(one.bytes / 4, rel=0.05)
    assert result.last == []
    assert not result.repeated


def test_migration_repeats_a_short_recording(tmp_path: Path) -> None:
    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(3):
        made.look([page(ANON, at)], resident=4000 * PAGE)
    result = views.migration(excerpt_of(made), bandwidth=100 * PAGE, downtime=0.001)
    assert result.repeated


def test_migration_with_a_round_of_many_recordings(tmp_path: Path) -> None:
    """Round 1 is 20 times as long as the recording; the few pages after it are sent."""
    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(10):
        made.look([page(ANON, at)], resident=4000 * PAGE)
    excerpt = excerpt_of(made)
    result = views.migration(excerpt, bandwidth=20 * PAGE, downtime=0.1)
    assert [row.bytes for row in result.rounds] == [4000 * PAGE, 10 * PAGE]
    assert result.converges
    for bandwidth in (1, 1000):  # each round is longer than the recording
        result = views.migration(excerpt, bandwidth=bandwidth, downtime=0.1)
        sent = [row.bytes for row in result.rounds]
        assert sent == [4000 * PAGE, *3 * [10 * PAGE]]
        assert (result.converges, result.repeated) == (False, True)
    result = views.migration(excerpt, bandwidth=10**30)
    assert (len(result.rounds), result.converges) == (1, True)


# ---- excerpts ----------------------------------------------------------------------


def test_a_part_of_the_time_and_of_the_memory(tmp_path: Path) -> None:
    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(60):
        made.look([page(HEAP, at), page(ANON, 0), page(ANON, 1)])
    recording = open_recording(made.close())
    span = parse_span("10s-20s", recording)
    part = Excerpt(recording, span=span)
    assert [look.number for look in part.looks] == [*range(11, 21)]
    assert parse_span("03:04:15-03:04:25", recording) == span
    assert parse_span("-20s", recording) == TimeSpan(None, span.end)
    assert parse_span("0-20s", recording).start == recording.looks[0].time_ns - BILLION
    heap = Excerpt(recording, Selection.parse(["[heap]"]), span)
    assert views.summary(heap).pages == 10
    (row,) = views.mappings(heap)
    assert row.mapping == "[heap]"
    one = Excerpt(recording, Selection.parse([f"{ANON.start:#x}+4K"]), span)
    assert views.summary(one).pages == 10
    (ages,) = views.ages(one)
    assert ages.written == PAGE


@pytest.mark.parametrize("text", ["", "-", "5", "20s-10s", "x-y", "25:00-26:00"])
def test_malformed_spans(tmp_path: Path, text: str) -> None:
    made = Made(tmp_path / "a", MAPPINGS)
    made.look([])
    with pytest.raises(UsageError):
        parse_span(text, open_recording(made.close()))


def test_an_empty_excerpt_is_refused(tmp_path: Path) -> None:
    made = Made(tmp_path / "a", MAPPINGS)
    made.look([page(HEAP, 1)])
    recording = open_recording(made.close())
    with pytest.raises(PagescanError, match="no look in that time"):
        Excerpt(recording, span=parse_span("1m-2m", recording)).check()
    with pytest.raises(PagescanError, match="no mapping is named"):
        Excerpt(recording, Selection.parse(["libc"])).check()
    nothing = open_recording(Made(tmp_path / "b", MAPPINGS).close())
    with pytest.raises(PagescanError, match="has no look"):
        views.summary(Excerpt(nothing))


def test_a_budget_counts_the_estimate(tmp_path: Path) -> None:
    from dataclasses import replace

    from pagescan.model.results import Estimate

    made = Made(tmp_path / "a", MAPPINGS)
    look = look_of([page(HEAP, 1)], MAPPINGS, second=1)
    made.file.add(0, 1, 1.0, replace(look, estimate=Estimate(50, 20, 90, 0.02)))
    result = views.summary(excerpt_of(made))
    assert result.pages == 50
    assert result.estimated
    assert format_size(result.bytes) == "200 KiB"


def test_views_by_name(tmp_path: Path) -> None:
    from pagescan.recording.api import open_recording as open_with_views

    made = Made(tmp_path / "a", MAPPINGS)
    for at in range(20):
        made.look([page(HEAP, at), page(ANON, 0)])
    with open_with_views(made.close()) as recording:
        assert len(recording.view("timeline", slots=4)) == 4
        assert recording.view("ages", ranges=["[heap]"])[0].mapping == "[heap]"
        assert recording.view("summary", time="-5s").looks == 5
        assert recording.view("migration", bandwidth=1 << 20).rounds[0].round == 1
        table = recording.view("working_set").table()
        assert table["looks"][-1] == 20
        with pytest.raises(UsageError, match="no such view"):
            recording.view("colours")


@pytest.mark.parametrize(
    "view",
    [
        *("summary", "timeline", "heatmap", "ages", "working_set", "phases"),
        *("mappings", "migration"),
    ],
)
def test_an_idle_target_has_every_view(tmp_path: Path, view: str) -> None:
    made = Made(tmp_path / "a", MAPPINGS)
    for _ in range(3):
        made.look([])
    result = getattr(views, view)(excerpt_of(made))
    if view in ("heatmap", "ages", "mappings"):
        assert result == []
    if view == "migration":
        assert result.freeze == 0
        assert result.converges


def test_two_recordings_of_programs_at_other_addresses(tmp_path: Path) -> None:
    """Half of the pages are the same, from the start of the mapping."""
    old = Made(tmp_path / "a", MAPPINGS)
    moved = mapping(HEAP.start + (1 << 30), 1000, "[heap]")
    new = Made(tmp_path / "b", MappingSet([moved]))
    for _ in range(10):
        old.look([*(page(HEAP, n) for n in range(100)), page(ANON, 1)])
        new.look([page(moved, n) for n in range(50, 150)])
    result = compare(excerpt_of(old), excerpt_of(new))
    rows = {row.mapping: row for row in result.mappings}
    assert rows["[heap]"].similarity == pytest.approx(50 / 150)
    assert rows["[heap]"].old_rate == rows["[heap]"].new_rate == 100 * PAGE
    assert (rows["[heap]"].old_start, rows["[heap]"].new_start) == (
        HEAP.start,
        moved.start,
    )
    assert rows["[anon]"].new_rate is None
    assert rows["[anon]"].similarity is None
    assert (rows["[anon]"].old_start, rows["[anon]"].new_start) == (ANON.start, None)
    assert (result.old_set, result.new_set) == (101 * PAGE, 100 * PAGE)
