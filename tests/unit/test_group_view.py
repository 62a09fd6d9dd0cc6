"""The live view of a group: its rows are processes, and what has gone is put aside."""

import io
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from rich.console import Console

from pagescan.model.groups import (
    GroupTick,
    MemberLook,
    MemberUntracked,
    Populated,
    ProcessFacts,
)
from pagescan.model.results import Cost, Summary, TargetFacts
from pagescan.render.live_view.group_view import KEYS, GroupView

PAGE = 4096
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FIRST, SECOND, THIRD = 101, 102, 103


def facts(pid: int, pages: int, total: int, end: str | None = None) -> ProcessFacts:
    """Return the facts of a process that wrote some pages in a tick."""
    return ProcessFacts(
        TargetFacts(pid, f"p{pid}", "/bin/p", 1000 + pid, PAGE),
        None,
        Summary(1, pages, pages * PAGE, {}),
        Summary(1, total, total * PAGE, {}),
        NOON,
        NOON if end else None,
        end,
        None if end else Populated(1000, 0),
    )


def tick(
    *members: ProcessFacts, gone: int = 0, refused: tuple[int, ...] = ()
) -> GroupTick:
    """Return a tick of one second."""
    pages = sum(member.summary.pages for member in members)
    summary = Summary(1, pages, pages * PAGE, {})
    return GroupTick(
        number=1,
        members=tuple(MemberLook(member, None) for member in members),
        since=NOON,
        time=NOON,
        seconds=1.0,
        summary=summary,
        totals=summary,
        untracked=tuple(
            MemberUntracked(pid, f"p{pid}", None, "it is a zombie") for pid in refused
        ),
        cost=Cost(),
        end=None,
        gone=gone,
        short_lived=None,
        armed_at=NOON,
    )


def drawn(view: GroupView, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of a screen."""
    console = Console(file=io.StringIO(), width=width, height=height)
    with console.capture() as capture:
        console.print(view)
    return [line.rstrip() for line in capture.get().splitlines()]


def text(view: GroupView, width: int = 80) -> str:
    """Return a screen as one text."""
    return "\n".join(drawn(view, width))


@pytest.fixture
def view() -> GroupView:
    """A group of two processes that can be tracked; the third one is a zombie."""
    made = GroupView("tree 101", 1.0)
    made.has_keys = True
    made.figures.begin([facts(pid, 0, 0) for pid in (FIRST, SECOND, THIRD)])
    members = facts(FIRST, 5, 5), facts(SECOND, 9, 9), facts(THIRD, 0, 0)
    made.update(tick(*members, refused=(THIRD,)))
    return made


def test_what_has_gone_is_put_aside(view: GroupView) -> None:
    """A line counts it, h shows it, and its writes stay in the totals."""
    assert "p102" in text(view)
    view.update(tick(facts(FIRST, 5, 10), facts(SECOND, 3, 12, "exited"), gone=1))
    assert "p102" not in text(view)
    assert "… 1 gone, these wrote 48.0 KiB (h)" in text(view)
    view.press(["h"])
    row = next(line for line in drawn(view) if "p102" in line)
    assert re.search(r"p102 +102 +0 .* 48K +exited", row)
    assert "gone" not in text(view).split("q quit")[0]
    view.update(tick(facts(FIRST, 5, 15), gone=1))
    assert re.search(r"p102 +102 +0 ", text(view))  # no rate of long ago


def test_what_is_not_tracked_is_put_aside(view: GroupView) -> None:
    """A zombie has no row among those that write, but the count names it."""
    assert "p103" not in text(view)
    assert "… 1 not tracked (h)" in text(view)
    view.press(["h", "end"])
    assert "not tracked: it is a zombie" in text(view)


def test_what_ended_before_any_look_leaves_no_row(view: GroupView) -> None:
    """A process that no tick names any more is no row, not even a hidden one."""
    view.update(tick(facts(FIRST, 5, 10), facts(SECOND, 0, 9)))
    view.press(["h"])
    assert "p103" not in text(view)
    assert THIRD not in view.figures.rows


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_each_sort_is_a_column_that_is_shown(view: GroupView, width: int) -> None:
    """At each press of s another column of the window has the mark."""
    marked = []
    for _ in range(6):
        head = next(line for line in drawn(view, width) if "history" in line)
        mark = re.search(r"(\w+)▾", head)
        marked.append(mark and mark[1])
        view.press(["s"])
    assert None not in marked
    assert len(set(marked[:2])) == 2


def test_help_is_about_processes(view: GroupView) -> None:
    """Each key of the foot is in it, and no key that only mappings have."""
    view.press(["?"])
    shown = text(view)
    assert "select a process" in shown
    assert "mapping that" not in shown
    assert "page map" not in shown
    for key, _ in KEYS:
        assert all(char in shown for char in key if char not in "?⏎")
    assert "Enter" in shown
    assert not re.search(r"^  g ", shown, re.MULTILINE)
    assert len(drawn(view)) <= 24


def test_a_process_that_is_gone_has_no_mappings(view: GroupView) -> None:
    """Enter says so instead of doing nothing."""
    view.update(tick(facts(FIRST, 5, 10), facts(SECOND, 3, 12, "exited"), gone=1))
    view.press(["h", "s", "home", "enter"])
    assert view.inside is None
    assert "102 p102: its mappings are gone" in text(view)
    view.press(["end"])
    assert "its mappings are gone" not in text(view)


def test_every_key_of_the_foot_works(view: GroupView) -> None:
    """Each changes the state, or opens a process."""
    opened: list[int] = []
    view.open = opened.append
    before = view.state
    for key in ("?", "s", "/", "h", "p", "+", "-", "down"):
        view.press([key])
        assert view.state != before, key
        view.state = before
    view.press(["enter"])
    assert opened == [SECOND]
    view.press(["q"])
    assert view.state.ended


def test_names_have_the_room_that_they_need(view: GroupView) -> None:
    """The history gets what is left, so that names stand beside their pid."""
    name = "postgres bench [local] idle in transaction"
    view.figures.rows[FIRST].facts = replace(facts(FIRST, 5, 5), label=name)
    for width in (100, 160):
        line = next(line for line in drawn(view, width) if name in line)
        assert re.search(re.escape(name) + rf" {{1,9}}{FIRST} ", line), line


def test_cost_says_what_it_is_a_share_of() -> None:
    """Idle processes use little time, so that a small cost is a large share of it."""
    view = GroupView("tree 101", 1.0)
    cost = Cost(target_ns=2_000_000, target_share=0.35, max_wait_ns=52_000)
    view.update(replace(tick(facts(FIRST, 5, 10)), cost=cost))
    line = next(line for line in drawn(view) if line.startswith("cost:"))
    assert "2.0 ms/s, 35 % of their processor time; longest wait 52 µs" in line
    assert "0 of 1 ran" in line


def test_before_the_first_look() -> None:
    """The processes, what they have in memory, and a countdown."""
    made = GroupView("tree 101", 60.0)
    made.figures.begin([facts(FIRST, 0, 0), facts(SECOND, 0, 0)])
    made.seconds_left = 43
    lines = drawn(made)
    assert lines[1].startswith("written - ")
    assert lines[2].startswith("first look in 43 s: ")
    assert re.search(r"p101 +101 +- +- +3.9M +0$", lines[4]), lines[4]
    made.update(tick(facts(FIRST, 5, 5), facts(SECOND, 0, 0)))
    made.seconds_left = 60
    assert drawn(made)[2].startswith(
        "5 distinct pages in the last look; the next in 60"
    )
    assert re.search(r"p102 +102 +0 ", text(made))


def test_w_says_where_writers_are(view: GroupView) -> None:
    """The table of processes has no writers: the line of the selected one says so."""
    view.words = "--tree 1"
    view.press(["w"])
    assert "w: pagescan who --tree 1 names the writers, after q" in text(view)
    assert not view.state.writers
    view.press(["down"])
    assert "names the writers" not in text(view)


def test_a_chart_fills_the_lines_that_the_table_leaves(view: GroupView) -> None:
    """It is that of the selected process; its highest bar has all lines."""
    for pages in (8, 16):
        view.update(tick(facts(FIRST, pages, 30), facts(SECOND, 1, 10)))
    lines = drawn(view, 160, 40)
    at = next(at for at, line in enumerate(lines) if "what it wrote" in line)
    assert lines[at].strip() == "what it wrote per s in the last 3 looks, at most 64K"
    assert lines[at - 1].startswith("▸ 101 ")
    assert (
        lines[at + 1].strip() == "64K " + " " * 118 + "██"
    )  # 60 looks, two cells each
    assert lines[at + 11].endswith("██████")
    assert lines[at + 12].startswith("cost: ")
    view.press(["end"])
    assert "at most 36K" in text(view, 160)
    for width, height in product([10, 40, 80, 160], [1, 5, 15, 16, 17, 24, 50]):
        lines = drawn(view, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_a_message_is_shown_for_a_while(
    view: GroupView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fits into its line, and is kept for the end with those before it."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in range(25):
        view.messages.say(f"101 was exec'd {number} times; " + "long " * 20)
    assert drawn(view)[2].startswith("101 was exec'd 24 times; long")
    assert drawn(view)[2].endswith("…")
    assert "distinct pages" not in text(view)
    now += 11
    assert "distinct pages" in text(view)
    assert view.messages.dropped == 5
    assert len(view.messages.kept) == 20
