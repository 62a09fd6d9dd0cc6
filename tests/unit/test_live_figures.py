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
from pagescan.model.looks import Look, Sampled, Tick, WatchedFacts
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Category, Mapping
from pagescan.model.ranges import ranges_of
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


def look(
    *runs: tuple[int, int],
    estimate: Estimate | None = None,
    sampled: Sampled | None = None,
) -> Tick:
    """Return a tick of one second whose look found these pages."""
    batch = Batch.join(columns(*runs), MappingSet(ALL), page_size=PAGE)
    time = datetime.now(UTC)
    found = Look(batch, (), time, Cost(max_wait_ns=5000), estimate, sampled)
    totals = Summary(1, 7, 7 * PAGE, {})
    return Tick(1, found, time, 1.0, None, totals)


def counted(figures: Figures | LiveView, *runs: tuple[int, int]) -> None:
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


def about(drawn: tuple[int, int], *others: tuple[int, int]) -> Sampled:
    """Return a sample: the pages that were looked at, and those they stand for."""
    ranges = [
        ranges_of((low * PAGE, high * PAGE) for low, high in runs)
        for runs in ([drawn], [drawn, *others])
    ]
    return Sampled(*ranges)


GUESS = Estimate(20, 10, 30, 0.5)


def test_estimate_weighs_what_was_tracked() -> None:
    """Half of the mapping was tracked: twice the pages count."""
    made = Figures(PAGE)
    half = about((100, 150), (150, 200))
    made.add(look((100, 110), estimate=GUESS, sampled=half), 1.0)
    assert made.rows[HEAP.start].written == 20 * PAGE
    assert made.rates[-1] == 20 * PAGE


def test_estimate_of_a_mapping_is_possible() -> None:
    """It is never above the size of a mapping, nor above what is populated."""
    made = Figures(PAGE)
    counted(made, (100, 160), (300, 1300), (2000, 2010))
    half = about((100, 150), (150, 200), (300, 1300), (2000, 2010))
    much = GUESS._replace(pages=100)
    made.add(look((100, 150), estimate=much, sampled=half), 1.0)
    assert made.rows[HEAP.start].written == 60 * PAGE
    whole = about((100, 200), (300, 1300))
    made.add(look((100, 105), estimate=GUESS, sampled=whole), 2.0)
    assert made.rows[HEAP.start].rate == 5 * PAGE


def test_rows_are_together_no_more_than_the_head() -> None:
    """The extrapolated part becomes smaller; the part that the look found stays."""
    made = Figures(PAGE)
    sampled = about((100, 150), (150, 200), (300, 1300), (2000, 2010))
    made.add(look((2000, 2010), estimate=GUESS, sampled=about((2000, 2010))), 1.0)
    # 10 of 50 pages of the first, and nothing of the others: 20 and 10 in their rows.
    made.add(look((100, 110), estimate=GUESS, sampled=sampled), 2.0)
    heap, other = made.rows[HEAP.start], made.rows[OTHER.start]
    assert (heap.rate, other.rate) == (15 * PAGE, 5 * PAGE)
    assert heap.rate + other.rate == made.rates[-1]
    few = GUESS._replace(pages=12)
    made.add(look((100, 110), estimate=few, sampled=sampled), 3.0)
    assert heap.rate >= 10 * PAGE
    assert heap.rate + other.rate <= made.rates[-1] == 12 * PAGE


def test_mapping_that_a_look_did_not_see() -> None:
    """Its last rate stands while it has pages; a look that sees it corrects that."""
    made = Figures(PAGE)
    made.add(look((2000, 2010), estimate=GUESS, sampled=about((2000, 2010))), 1.0)
    without = about((100, 200), (2000, 2010))
    made.add(look((100, 101), estimate=GUESS, sampled=without), 2.0)
    assert made.rows[OTHER.start].rate == 10 * PAGE
    assert made.rows[OTHER.start].written == 20 * PAGE
    made.add(look(estimate=GUESS, sampled=about((2000, 2010))), 3.0)
    assert made.rows[OTHER.start].rate == 0
    made.add(look(estimate=GUESS, sampled=about((100, 200))), 4.0)
    assert made.rows[OTHER.start].written == 20 * PAGE


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


def test_a_mapping_that_no_look_has_seen_is_not_called_unwritten() -> None:
    """With a budget its figures are unknown, until a look sees a part of it."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300), (4000, 4002))
    everything = (100, 110), (300, 1300), (4000, 4002)
    view.update(look((100, 102), estimate=GUESS, sampled=about(*everything)))
    lines = draw(view, 80, 24)
    assert any("… 1 never written; 2 not looked at yet" in line for line in lines)
    view.state = ViewState(idle=True, sort="address")
    heap, anon = (line.split() for line in draw(view, 80, 24)[4:6])
    assert heap[1:4:2] == ["8.0K", "8.0K"], heap
    assert anon[2:4] == ["-", "-"], anon
    view.update(look(estimate=GUESS, sampled=about(everything[1], *everything)))
    view.state = ViewState()
    lines = draw(view, 80, 24)
    assert any("… 2 never written; 1 not looked at yet" in line for line in lines)


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
    assert draw(view, 80, 24)[2] == "first look in 2 s"
    view.update(look((100, 102), (300, 1300)))
    assert draw(view, 80, 24)[2] == (
        "1,002 distinct pages in the last look; a longer interval gives a lower rate"
    )
    view.update(look((100, 110), estimate=GUESS))
    said = draw(view, 80, 24)[2]
    assert said == "distinct pages per look, estimated ±50% from 50% of memory"


def test_before_the_arming_there_are_the_largest_mappings() -> None:
    """No figure of tracking, and not how many others there are; then all of them."""
    view = LiveView(WatchedFacts.unarmed(facts().target, None), 1.0)
    view.before = "arming 60,000 mappings"
    large = MappingCounts(ANON, 1000, 1000 * PAGE, {"present": 900, "file": 0})
    view.figures.set_largest([large])
    lines = draw(view, 80, 24)
    assert "tracking" not in lines[0]
    assert "present" not in lines[1]
    assert lines[2] == "arming 60,000 mappings"
    assert lines[4].split()[:6] == ["▸[anon]", f"{ANON.start:x}", "-", "-", "3.5M", "0"]
    assert not any("cost:" in line or " below" in line for line in lines)
    view.watched = facts()
    view.before = "counting what is present"
    assert any("cost: stopped once 200 µs" in line for line in draw(view, 80, 24))
    counted(view, (100, 110))
    view.before = ""
    lines = draw(view, 80, 24)
    assert "tracking 1.0 MiB" in lines[0]
    assert "present 40.0 KiB" in lines[1]
    assert [line.split()[0] for line in lines[4:6] if line] == ["▸[heap]"]


def test_before_the_first_look_there_is_what_is_present() -> None:
    """Rows by size, without a figure that only a look gives, and a countdown."""
    view = LiveView(facts(), 60.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.seconds_left = 43
    lines = draw(view, 80, 24)
    assert lines[1].startswith("written - ")
    assert lines[2].startswith("first look in 43 s: ")
    anon, heap = (line.split() for line in lines[4:6])
    assert anon[:6] == ["▸[anon]", f"{ANON.start:x}", "-", "-", "3.9M", "0"], anon
    assert heap[:5] == ["[heap]", "-", "-", "40K", "0"], heap
    assert "never written" not in "".join(lines)
    view.update(look((300, 310)))
    view.seconds_left = 60
    lines = draw(view, 80, 24)
    assert lines[2] == "10 distinct pages in the last look; the next in 60 s"
    assert any("… 3 never written" in line for line in lines)
    view.press(["p"])
    assert "no look yet" not in "".join(draw(view, 80, 24))


def test_a_pause_before_the_first_look() -> None:
    """It says how to go on, and counts nothing down."""
    view = LiveView(facts(), 60.0)
    view.press(["p"])
    assert draw(view, 80, 24)[2] == "no look yet: p goes on"


@pytest.mark.parametrize("pages", [0, 1, 40])
def test_an_error_above_the_estimate_is_no_percentage(pages: int) -> None:
    """It says the most that can have been written, in bytes."""
    view = LiveView(facts(), 2.0)
    view.update(look(estimate=Estimate(pages, 0, 9254, 0.03)))
    said = draw(view, 80, 24)[2]
    assert said == (
        "distinct pages per look, estimated from 3% of memory, at most 36.1 MiB"
    )


def costly(share: float, spent_ns: int) -> Tick:
    """Return a tick of one second that has cost the target that much."""
    tick = look((100, 102))
    assert tick.look is not None
    cost = Cost(target_share=share, target_ns=spent_ns)
    return replace(tick, look=replace(tick.look, cost=cost), total_share=share / 2)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (40, 12)])
def test_a_high_cost_is_a_warning(width: int, height: int) -> None:
    """It is in colour, and names the remedy, as long as it lasts."""
    view = LiveView(facts(), 1.0)
    view.has_keys = True
    view.update(costly(0.65, 652_000_000))
    line = next(line for line in draw(view, width, height) if "cost:" in line)
    assert "cost: 65 %" in line
    assert "--budget 2" in line
    assert len(line) <= width
    console = Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system="standard",
    )
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    assert re.search("\x1b\\[1;37;41m65 %", console.file.getvalue())
    view.update(costly(0.02, 20_000_000))
    assert "cost: 20 ms/s, 2.0 %" in "".join(draw(view, width, height))
    view.update(costly(0.65, 1_000_000))  # the target does next to nothing
    assert "--budget" not in "".join(draw(view, width, height))


def test_cost_within_a_budget_is_that_of_all_looks() -> None:
    """The budget bounds the sum: one look may cost more, and the next ones less."""
    view = LiveView(facts()._replace(budget=2.0), 1.0)
    view.update(costly(0.08, 80_000_000))
    line = next(line for line in draw(view, 80, 24) if line.startswith("cost:"))
    assert line.startswith("cost: 4.0 % of its processor time, budget 2 %;")


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


def writing(view: LiveView) -> None:
    """Let two functions write the heap, and one without a name all else."""
    rows = [(HEAP.start, "grow", 2), (HEAP.start, "clear", 1), (ANON.start, None, 10)]
    view.writers.set_look(rows, whole=True)


@pytest.mark.parametrize("width", [50, 80, 160])
def test_writers_stand_beside_the_rows(width: int) -> None:
    """The function that wrote most, and how many others there are."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 103), (300, 310), (2000, 2001)))
    assert "first writer" not in "".join(draw(view, width, 24))
    view.press(["w"])
    writing(view)
    lines = draw(view, width, 24)
    assert "first writer" in lines[3]
    assert ("where" in lines[3]) == (width > 70)
    assert "history" not in lines[3]
    rows = {line.split()[-1 if width == 50 else 0]: line for line in lines[4:7]}
    assert any("grow +1" in line and "[heap]" in line for line in rows.values())
    assert any("(no name)" in line for line in rows.values())
    assert max(map(len, lines)) <= width
    view.press(["down"])
    assert "rw-p" in "".join(draw(view, width, 24))


def test_a_row_without_a_writer() -> None:
    """It has a mark, which differs until a whole interval was sampled."""
    view = LiveView(facts(), 1.0)
    view.update(look((100, 103)))
    view.press(["w"])
    cell = view.writers.cell
    row = view.figures.rows[HEAP.start]
    assert cell(row, 12) == "…"
    view.writers.set_look([(HEAP.start, "grow", 1)], whole=False)
    assert cell(row, 12) == "grow"
    view.writers.set_look([], whole=True)
    assert cell(row, 12) == "-"
    view.update(look((300, 310)))
    assert cell(row, 12) == ""


def test_writers_of_a_group_of_mappings() -> None:
    """The pages of all its mappings are summed up; the line below has the share."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 103), (300, 310)))
    writing(view)
    rows = [*view.figures.rows.values()]
    (both,) = group(rows[:2], "kind")
    assert view.writers.of(both) == {"grow": 2, "clear": 1, "(no name)": 10}
    assert view.writers.cell(both, 14) == "(no name) +2"
    assert view.writers.sentence(both, 20) == "(no name) 77%"
    assert len(view.writers.cell(both, 6)) <= 6


def test_writers_of_the_mapping_on_the_page_map() -> None:
    """With w its functions stand above the map, as many as fit."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 103), (300, 310)))
    view.has_keys = True
    view.state = view.state._replace(map=MapState(HEAP.start))
    assert any("w who" in line for line in draw(view, 80, 24))
    plain = draw(view, 80, 24)
    view.press(["w"])
    assert draw(view, 80, 24)[5] == "writers: the next look names them"
    writing(view)
    lines = draw(view, 80, 24)
    assert lines[5] == "first writers: grow 67%, clear 33%"
    assert draw(view, 30, 24)[5] == "first writers: grow 67%, 1 more"[:30]
    assert lines[:5] == plain[:5]
    view.writers.set_look([], whole=True)
    assert draw(view, 80, 24)[5] == "writers: none is known"
    view.update(look((300, 310)))
    assert draw(view, 80, 24)[5] == "not written in the last look"
    view.press(["w"])
    assert draw(view, 80, 24)[5] == plain[5]


def test_a_note_about_writers() -> None:
    """It is in the third line until the next key."""
    view = LiveView(facts(), 1.0)
    view.update(look((100, 103)))
    view.writers.note = "w: samples are denied"
    assert draw(view, 80, 24)[2] == "w: samples are denied"
    view.press(["down"])
    assert "distinct pages" in draw(view, 80, 24)[2]


LABELS = {ANON.start: "[postgres shared buffers]", HEAP.start: "[malloc main arena]"}


def labelled(width: int, height: int) -> list[str]:
    """Return the screen of two mappings with long labels, both written."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 103), (300, 310)))
    for start, label in LABELS.items():
        view.figures.rows[start].label = label
    return draw(view, width, height)


@pytest.mark.parametrize(("width", "whole"), [(80, 1), (120, 2), (160, 2)])
def test_names_have_the_room_that_they_need(width: int, whole: int) -> None:
    """The strip gets what is left, and has no more than a bound taken away."""
    lines = labelled(width, 24)
    table = lines[lines.index(next(line for line in lines if "per s▾" in line)) + 1 :]
    assert (
        sum(label in line for label in LABELS.values() for line in table[:2]) == whole
    )
    assert all(line.count("▕") == line.count("▏") == 1 for line in table[:2])
    assert len(table[0]) == width
    if whole == 2:
        address, name, rest = table[0].partition("[postgres shared buffers]")
        assert name, (address, rest)
        assert rest.startswith(" " * 4)  # the rate is right behind it


def test_columns_do_not_move_with_the_names() -> None:
    """A long name that has scrolled away keeps its room."""
    view = LiveView(facts(), 1.0)
    counted(view.figures, (100, 110), (300, 1300))
    view.update(look((100, 103), (300, 310)))
    view.figures.rows[ANON.start].label = LABELS[ANON.start]
    before = next(line for line in draw(view, 100, 24) if "per s▾" in line)
    view.figures.rows[ANON.start].label = ""
    assert before in draw(view, 100, 24)


def test_the_page_map_takes_the_lines_that_are_left() -> None:
    """The selected row is drawn below the table, from its first populated page on."""
    lines = labelled(100, 40)
    at = next(n for n, line in enumerate(lines) if "1,000 pages populated" in line)
    assert lines[at].startswith(f"▸ {ANON.start:x}-{ANON.end:x} ")
    assert "up to 1 per cell" in lines[at]
    narrow = next(line for line in labelled(80, 40) if line.startswith("▸ "))
    assert narrow.rstrip().endswith("]  1,000 pages")
    narrow = next(line for line in labelled(60, 40) if line.startswith("▸ "))
    assert narrow.rstrip().endswith("]")
    mapped = [line for line in lines[at + 1 : -3] if line.strip()]
    assert len(mapped) == -(-1000 // 80)
    assert mapped[0].split() == [f"{ANON.start:x}", "█" * 10 + "·" * 70]
    assert lines[at + 1 + len(mapped)].startswith("▁ 0.1%")


@pytest.mark.parametrize("height", [8, 15, 16])
def test_a_low_window_has_no_page_map(height: int) -> None:
    assert not [line for line in labelled(100, height) if "per cell" in line]
