"""The live view's figures: ages, page maps, rows, their order, and what is drawn."""

import io
import re
from array import array
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from rich.console import Console

from pagescan.model.batch import Batch
from pagescan.model.looks import Look, Tick, WatchedFacts
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Category, Mapping
from pagescan.model.results import Cost, Estimate, MappingCounts, Summary, TargetFacts
from pagescan.native import Columns
from pagescan.render.live_view.ages import MINUTE, NEVER, NOW, OLDER, RECENT, Ages
from pagescan.render.live_view.figures import Figures, LiveRow, group
from pagescan.render.live_view.ordered_rows import OrderedRows
from pagescan.render.live_view.page_map import Cell, PageMap
from pagescan.render.live_view.view import TABLE_KEYS, LiveView, summary_lines
from pagescan.render.live_view.view_state import MapState, ViewState

PAGE = 4096
WRITTEN = Category.WRITTEN | Category.PRESENT
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def mapping(first: int, pages: int, name: str = "", inode: int = 0) -> Mapping:
    """Return a mapping; addresses are counted in pages."""
    return Mapping(first * PAGE, (first + pages) * PAGE, "rw-p", 0, (0, 0), inode, name)


HEAP = mapping(100, 100, "[heap]")
ANON = mapping(300, 1000)
OTHER = mapping(2000, 10)
LIBC = mapping(4000, 10, "/usr/lib/libc.so.6", 7)
ALL = [HEAP, ANON, OTHER, LIBC]


def columns(*runs: tuple[int, int], bits: int = WRITTEN) -> Columns:
    """Return runs of pages, first and end, as columns."""
    return Columns(
        array("Q", (first * PAGE for first, _ in runs)),
        array("Q", (end * PAGE for _, end in runs)),
        array("Q", [bits] * len(runs)),
    )


def look(*runs: tuple[int, int], estimate: Estimate | None = None) -> Tick:
    """Return a tick of one second whose look found these pages."""
    batch = Batch.join(columns(*runs), MappingSet(ALL), page_size=PAGE)
    time = datetime.now(UTC)
    found = Look(batch, (), time, Cost(max_wait_ns=5000), estimate)
    totals = Summary(1, 7, 7 * PAGE, {})
    return Tick(1, found, time, 1.0, None, totals)


def counted(figures: Figures, *runs: tuple[int, int]) -> None:
    """Count these pages as present."""
    batch = Batch.join(
        columns(*runs, bits=Category.PRESENT), MappingSet(ALL), page_size=PAGE
    )
    found = {row.mapping.start: row.pages for row in batch.by_mapping()}
    rows = [
        MappingCounts(
            one, 1, 1, {"present": found.get(one.start, 0), "swapped": 0, "file": 0}
        )
        for one in ALL
    ]
    figures.set_counts(rows, batch)


@pytest.fixture
def figures() -> Figures:
    """Two looks, one and a half second apart, and a count before."""
    made = Figures(PAGE)
    counted(made, (100, 110), (300, 1300), (4000, 4002))
    made.add(look((100, 102), (300, 310)), 10.0)
    made.add(look((300, 304), (2000, 2001)), 11.5)
    return made


def test_ages_have_classes() -> None:
    """The newest write to a page counts, and ages as looks come."""
    ages = Ages()
    for time, page in [(0.0, 1), (40.0, 2), (95.0, 3), (99.0, 3), (100.0, 4)]:
        one = columns((page, page + 1))
        ages.add(one.starts, one.ends, time)
    classes = ages.classes()
    by_page = dict(zip(ages.regions.starts, ages.regions.categories, strict=True))
    found = {
        start // PAGE: next(
            age for age, stamps in enumerate(classes) if stamp in stamps
        )
        for start, stamp in by_page.items()
    }
    assert found == {1: OLDER, 2: MINUTE, 3: RECENT, 4: NOW}
    assert ages.last_write(3 * PAGE, 4 * PAGE) == 99.0
    assert ages.last_write(9 * PAGE, 10 * PAGE) is None


def test_a_look_without_a_write_leaves_nothing_in_the_newest_class() -> None:
    """Writes of the previous look are some seconds old then."""
    ages = Ages()
    one = columns((1, 2))
    ages.add(one.starts, one.ends, 1.0)
    ages.add(array("Q"), array("Q"), 2.0)
    assert ages.classes()[NOW] == {}
    assert len(ages.classes()[RECENT]) == 1


def test_many_looks_have_few_stamps() -> None:
    """Times of long ago are coarser, and never later than the truth by a pair."""
    ages = Ages()
    for number in range(500):
        one = columns((number, number + 1))
        ages.add(one.starts, one.ends, float(number))
    assert len(set(ages.regions.categories)) <= 25
    assert ages.last_write(499 * PAGE, 500 * PAGE) == 499.0
    first = ages.last_write(0, PAGE)
    assert first is not None
    assert first < 480


def test_too_many_regions_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that the view takes is bounded: the oldest writes are forgotten."""
    monkeypatch.setattr("pagescan.render.live_view.ages.MOST_REGIONS", 10)
    ages = Ages()
    for number in range(8):
        one = columns(
            *((page, page + 1) for page in range(number * 10, number * 10 + 4, 2))
        )
        ages.add(one.starts, one.ends, float(number))
    assert 0 < len(ages.regions.starts) <= 10
    assert ages.last_write(70 * PAGE, 71 * PAGE) == 7.0


def test_holes_are_left_out(figures: Figures) -> None:
    """Ten populated pages of a hundred fill the strip, in their order."""
    ranges = [(HEAP.start, HEAP.end)]
    made = PageMap(ranges, figures.populated, figures.ages, PAGE)
    assert made.pages == 10
    strip = made.strip(10)
    assert [cell.age for cell in strip] == [RECENT] * 2 + [NEVER] * 8
    assert strip[0] == Cell(RECENT, 1.0)


def test_cells_have_the_share_of_the_newest_age(figures: Figures) -> None:
    """Four pages of the last look in a cell of a hundred: 4 %, and it is new."""
    ranges = [(ANON.start, ANON.end)]
    made = PageMap(ranges, figures.populated, figures.ages, PAGE)
    cells = made.cells(0, made.pages, 10)
    assert cells == [Cell(NOW, 0.04)] + [Cell()] * 9
    assert made.written(0, 100) == (10, 11.5)
    assert made.written(4, 10) == (6, 10.0)
    assert made.written(500, 600) == (0, None)
    assert [cell.age for cell in made.cells(0, 16, 16)] == [NOW] * 4 + [RECENT] * 6 + [
        NEVER
    ] * 6


def test_written_after_the_count_is_populated(figures: Figures) -> None:
    """The count found no page of it, the look did."""
    made = PageMap([(OTHER.start, OTHER.end)], figures.populated, figures.ages, PAGE)
    assert made.pages == 1
    assert made.address(0) == OTHER.start
    assert made.strip(3) == [Cell(NOW, 1.0)] * 3


def test_before_the_count_the_whole_mapping_is_drawn(figures: Figures) -> None:
    """Before the count its holes are unknown."""
    made = PageMap([(HEAP.start, HEAP.end)], None, figures.ages, PAGE)
    assert made.pages == 100
    assert PageMap([], None, figures.ages, PAGE).strip(4) == [Cell()] * 4


def test_rates_and_growth(figures: Figures) -> None:
    """The rate is of the last look; growth is against the first count."""
    heap, anon = figures.rows[HEAP.start], figures.rows[ANON.start]
    assert (heap.rate, heap.written) == (0.0, 2 * PAGE)
    assert (anon.rate, anon.written) == (4 * PAGE, 14 * PAGE)
    assert figures.pages == 5
    assert figures.bars_of(heap, 8) == [2 * PAGE, 0.0]
    assert figures.bars_of(anon, 1) == [4 * PAGE]
    counted(figures, (100, 150), (300, 400), (2000, 2004))
    assert heap.growth == 40 * PAGE
    assert anon.growth == -900 * PAGE
    assert figures.rows[OTHER.start].growth == 4 * PAGE
    assert list(figures.rates) == [12 * PAGE, 5 * PAGE]


def test_a_mapping_that_comes_later_grew_from_nothing() -> None:
    """All of its pages are growth."""
    made = Figures(PAGE)
    made.set_counts([], Batch.join(columns(), MappingSet(), page_size=PAGE))
    counted(made, (100, 110))
    assert made.rows[HEAP.start].growth == 10 * PAGE


def test_a_mapping_that_is_gone(figures: Figures) -> None:
    """It keeps what it wrote; if it never wrote, its row goes."""
    nothing = Batch.join(columns(), MappingSet(), page_size=PAGE)
    figures.set_counts([], nothing)
    assert set(figures.rows) == {HEAP.start, ANON.start, OTHER.start}
    row = figures.rows[HEAP.start]
    assert (row.gone, row.present, row.growth) == (True, 0, -10 * PAGE)
    ordered = OrderedRows(figures)
    assert ordered.of(ViewState()) == []
    assert ordered.hidden(ViewState()).gone == 3
    assert len(ordered.of(ViewState(idle=True))) == 3
    assert not figures.ages.regions.starts


def test_labels_are_names(figures: Figures) -> None:
    """A label stands for the name: in the table, in groups and in the filter."""
    batch = Batch.join(columns(), MappingSet(ALL), page_size=PAGE)
    rows = [MappingCounts(one, 1, 1, {}) for one in ALL]
    figures.set_counts(rows, batch, {ANON.start: "[java heap]"})
    ordered = OrderedRows(figures)
    assert [row.name for row in ordered.of(ViewState(filter="java"))] == ["[java heap]"]
    keys = [row.key for row in ordered.of(ViewState(group="name"))]
    assert keys == ["[java heap]", "[anon]", "[heap]"]


def test_estimate_weighs_what_was_tracked() -> None:
    """Half of the memory was tracked: twice the pages count."""
    made = Figures(PAGE)
    made.add(look((100, 110), estimate=Estimate(20, 10, 30, 0.5)), 1.0)
    assert made.rows[HEAP.start].written == 20 * PAGE


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("rate", [ANON, OTHER, HEAP]),
        ("since", [ANON, HEAP, OTHER]),
        ("growth", [HEAP, OTHER, ANON]),
        ("present", [ANON, HEAP, OTHER]),
        ("address", [HEAP, ANON, OTHER]),
    ],
)
def test_orders(sort: str, order: list[Mapping], figures: Figures) -> None:
    """The largest first, addresses ascending; what was never written is hidden."""
    counted(figures, (100, 150), (300, 400), (2000, 2004), (4000, 4010))
    ordered = OrderedRows(figures)
    rows = ordered.of(ViewState(sort=sort))
    assert [row.mappings[0] for row in rows] == order
    assert ordered.hidden(ViewState(sort=sort)).idle == 1
    assert LIBC in [row.mappings[0] for row in ordered.of(ViewState(idle=True))]


def test_filter_and_groups(figures: Figures) -> None:
    """A filter finds names and addresses; a group adds up its mappings."""
    ordered = OrderedRows(figures)
    rows = ordered.of(ViewState(filter="HEAP"))
    assert [row.key for row in rows] == [HEAP.start]
    assert ordered.hidden(ViewState(filter="HEAP")).filtered == 2
    assert len(ordered.of(ViewState(filter=f"{OTHER.start:x}"))) == 1
    anon, heap = ordered.of(ViewState(group="name"))
    assert (anon.key, heap.key) == ("[anon]", "[heap]")
    assert (len(anon.mappings), anon.rate, anon.written) == (2, 5 * PAGE, 15 * PAGE)
    assert figures.bars_of(anon, 2) == [10 * PAGE, 5 * PAGE]
    assert [row.key for row in group(figures.rows.values(), "kind")] == [
        "private anonymous",
        "private file",
    ]
    within = ordered.of(ViewState(group="name", within="[anon]"))
    assert [row.key for row in within] == [ANON.start, OTHER.start]


def facts() -> WatchedFacts:
    """Return the facts of a target with a hostile name."""
    return WatchedFacts(
        TargetFacts(42, "x\x1b[2Jy", None, 1, PAGE), 1 << 20, 4, 200_000
    )


def draw(view: LiveView, width: int, height: int) -> list[str]:
    """Return the lines of the screen."""
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True
    )
    with console.capture() as capture:
        console.print(view, end="")
    text = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())
    return text.removesuffix("\n").split("\n")


@pytest.mark.parametrize(
    "state",
    [
        ViewState(),
        ViewState(help=True),
        ViewState(map=MapState(ANON.start)),
        ViewState(map=MapState(ANON.start, first=900, pages=600, cursor=5)),
        ViewState(map=MapState(0xDEAD000)),
        ViewState(group="name", idle=True, paused=True, typing=True, filter="a"),
        ViewState(filter="nothing has this"),
    ],
)
def test_fits_every_window(state: ViewState) -> None:
    """No line is too long, they fill the window, none has control characters."""
    view = LiveView(facts(), 1.0, note="CMD's output: discarded")
    view.has_keys = True
    for counted_before in (False, True):
        if counted_before:
            counted(view.figures, (100, 110), (300, 1300), (4000, 4002))
            view.update(look((100, 102), (300, 310)))
        view.state = state
        for width, height in product(
            [10, 40, 69, 70, 80, 100, 160], [1, 2, 5, 8, 12, 15, 16, 24, 50]
        ):
            lines = draw(view, width, height)
            assert len(lines) == height
            assert max(map(len, lines)) <= width
            assert "\x1b" not in "".join(lines)


def test_the_rate_says_what_it_is() -> None:
    """Distinct pages per look; and that the interval matters."""
    view = LiveView(facts(), 2.0)
    assert "the first look comes in 2 s" in draw(view, 80, 24)[2]
    view.update(look((100, 102), (300, 1300)))
    assert draw(view, 80, 24)[2] == (
        "1,002 distinct pages in the last look; a longer interval gives a lower rate"
    )
    view.update(look((100, 110), estimate=Estimate(20, 10, 30, 0.5)))
    said = draw(view, 80, 24)[2]
    assert said == "distinct pages per look, estimated ±50% from 50% of memory"


def test_head_keeps_the_note() -> None:
    """In a narrow window the note stays, and the tracked size goes."""
    view = LiveView(facts(), 1.0, note="CMD's output: discarded")
    assert "tracking 1.0 MiB  CMD's output: discarded" in draw(view, 80, 24)[0]
    assert "every 1 s  CMD's output: discarded" in draw(view, 60, 24)[0]


def test_foot_without_a_keyboard_names_no_keys() -> None:
    """Where stdin is no terminal, only Ctrl-C ends it."""
    view = LiveView(facts(), 1.0)
    assert draw(view, 80, 24)[-1] == "Ctrl-C ends it"
    view.has_keys = True
    foot = draw(view, 80, 24)[-1]
    words = re.findall("[a-z]{3,}", foot)
    assert words == [word for _, word in TABLE_KEYS]


def test_keys_reach_the_view() -> None:
    """Down and Enter open the page map of the second row; the help names the keys."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 102), (300, 310)))
    draw(view, 80, 24)
    view.press(["down", "enter"])
    lines = draw(view, 80, 24)
    assert f"{HEAP.start:x}-{HEAP.end:x} rw-p [heap]  10 pages populated" in lines[3]
    assert "█" * 8 + "·" * 32 in lines[5]
    view.press(["right"])
    assert "1 of 1 page written, the last in the last look" in "".join(
        draw(view, 80, 24)
    )
    view.press(["escape", "?"])
    assert "select a mapping; also PgUp" in "".join(draw(view, 80, 24))


def test_scrolled_table_shows_the_selected_row() -> None:
    """With room for few rows, the last one can be reached."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 103), (300, 310), (2000, 2001), (4000, 4002)))
    draw(view, 80, 9)
    view.press(["end"])
    text = "\n".join(draw(view, 80, 9))
    assert f"▸[anon] {OTHER.start:x}" in text
    assert "above" in text


def test_summary_names_the_mappings_written_most() -> None:
    """The largest first, without those that were never written."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 102), (300, 310)))
    head, first, second = summary_lines(view, 80)
    assert head.split() == ["written", "present", "growth", "mapping"]
    assert first.split()[:2] == ["40.0", "KiB"]
    assert "0  [anon]" in first
    assert "8.0 KiB" in second
    assert "0  [heap]" in second


def test_summary_fits_into_the_window() -> None:
    """A long path is cut, its end stays; the addresses stay whole."""
    long = mapping(9000, 4, f"/opt/{'directory/' * 12}library.so.6", 8)
    view = LiveView(facts(), 1.0)
    batch = Batch.join(columns((9000, 9004)), MappingSet([long]), page_size=PAGE)
    view.update(look((9000, 9001)))
    view.figures.add(replace(look(), look=Look(batch, (), NOON, Cost())), 1.0)
    for width in (80, 100, 160):
        lines = summary_lines(view, width)
        assert max(map(len, lines)) <= width
        assert "library.so.6" in lines[1]
        assert f"{long.start:x}-{long.end:x}" in lines[1]


# ---- mappings that grow -----------------------------------------------------------


def seen(figures: Figures, *parts: tuple[int, int, int], name: str = "[heap]") -> None:
    """Count mappings: first page, pages, and how many of them are present."""
    rows = [
        MappingCounts(
            mapping(first, pages, name),
            pages,
            pages * PAGE,
            {"present": present, "swapped": 0, "file": 0},
        )
        for first, pages, present in parts
    ]
    found = Batch.join(Columns.empty(), MappingSet(()), page_size=PAGE)
    figures.set_counts(rows, found)


def wrote(figures: Figures, *parts: tuple[int, int], name: str = "[heap]") -> None:
    """Add a look at mappings (first page, pages) that finds their last page written."""
    runs = [(first + pages - 1, first + pages) for first, pages in parts]
    there = MappingSet([mapping(first, pages, name) for first, pages in parts])
    batch = Batch.join(columns(*runs), there, page_size=PAGE)
    figures.add(replace(look(), look=Look(batch, (), NOON, Cost())), 1.0)


def test_parts_of_a_growing_mapping_are_one_row() -> None:
    """Tracking divides it; its program knows one mapping, and so does the view."""
    figures = Figures(PAGE)
    seen(figures, (100, 50, 20))
    wrote(figures, (100, 50), (150, 10))
    seen(figures, (100, 50, 20), (150, 10, 10))
    wrote(figures, (100, 60), (160, 5))
    seen(figures, (100, 60, 30), (160, 5, 5))
    [row] = figures.rows.values()
    assert (row.written, row.present, row.growth) == (4 * PAGE, 35 * PAGE, 15 * PAGE)
    assert (row.mappings[0].start, row.mappings[0].end) == (100 * PAGE, 165 * PAGE)
    assert not row.gone
    assert list(figures.written) == [row.key]


def test_mapping_that_grows_downwards_is_the_same_row() -> None:
    """New memory below it takes over its row, with all that was written before."""
    figures = Figures(PAGE)
    seen(figures, (200, 50, 20), name="")
    wrote(figures, (200, 50), name="")
    wrote(figures, (180, 20), (200, 50), name="")
    assert [row.present for row in figures.rows.values()] == [20 * PAGE]  # not "-"
    seen(figures, (180, 20, 20), (200, 50, 20), name="")
    [row] = figures.rows.values()
    assert (row.key, row.written, row.growth) == (180 * PAGE, 3 * PAGE, 20 * PAGE)
    assert figures.bars_of(row, 2) == [PAGE, 2 * PAGE]


def test_mappings_that_were_separate_before_stay_so() -> None:
    """The kernel does not always join neighbours: a border from before is no cut."""
    figures = Figures(PAGE)
    parts = [(100, 20), (120, 20), (140, 20)]
    rows = [
        MappingCounts(
            mapping(first, pages),
            pages,
            pages * PAGE,
            {"present": 5, "written": None if first == 140 else 0},
        )
        for first, pages in parts
    ]
    found = Batch.join(Columns.empty(), MappingSet(()), page_size=PAGE)
    figures.set_counts(rows, found)
    wrote(figures, *parts, name="")
    assert [(row.key, row.written) for row in figures.rows.values()] == [
        (100 * PAGE, PAGE),
        (120 * PAGE, 2 * PAGE),  # the last one is not registered: a growing end
    ]


def test_hole_in_a_mapping_divides_what_was_there_at_the_start() -> None:
    """The part behind the hole has not grown."""
    figures = Figures(PAGE)
    seen(figures, (100, 50, 50))
    seen(figures, (100, 20, 20), (130, 20, 20))
    assert [row.growth for row in figures.rows.values()] == [-10 * PAGE, 0]


def test_stacks_of_threads_are_one_group() -> None:
    """Each has a name of its own; the kernel's own [stack] stays by itself."""
    rows = [
        LiveRow(1, [ANON], label="[stack of worker-1 7]"),
        LiveRow(2, [ANON], label="[stack of worker-2 8]"),
        LiveRow(3, [mapping(1, 1, "[stack]")]),
    ]
    assert [(row.key, len(row.mappings)) for row in group(rows, "name")] == [
        ("[stacks of threads]", 2),
        ("[stack]", 1),
    ]
