"""Each key of the live view: the state before, a key, the state after."""

from itertools import pairwise

import pytest

from pagescan.render.live_view import help_screen
from pagescan.render.live_view.view_state import (
    GROUPS,
    INTERVALS,
    SORTS,
    MapState,
    Shown,
    ViewState,
    press,
)

ROWS = Shown(keys=[0x1000, 0x2000, 0x3000, 0x4000], height=2)
MAP = Shown(pages=1024, columns=16, cells=64)


def after(state: ViewState, *keys: str, shown: Shown = ROWS) -> ViewState:
    """Return the state after some keys."""
    for key in keys:
        state = press(state, key, shown)
    return state


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        (["down"], 0x2000),
        (["down", "j", "up"], 0x2000),
        (["k"], 0x1000),
        (["pagedown"], 0x3000),
        (["end"], 0x4000),
        (["end", "down"], 0x4000),
        (["end", "home"], 0x1000),
        (["end", "pageup"], 0x2000),
    ],
)
def test_cursor_keys_select_a_row(keys: list[str], selected: int) -> None:
    """The selection moves by rows and pages, and stops at both ends."""
    assert after(ViewState(), *keys).selected == selected


def test_selection_is_a_mapping_and_not_a_place() -> None:
    """If the order changes, the same mapping stays selected."""
    state = after(ViewState(), "down")
    turned = ROWS._replace(keys=ROWS.keys[::-1])
    assert press(state, "down", turned).selected == 0x1000


def test_a_row_that_is_gone_selects_the_first() -> None:
    """Enter then opens the row that the screen marks."""
    state = ViewState(selected=0x9000)
    assert after(state, "enter").map == MapState(0x1000)


def test_no_rows_no_selection() -> None:
    """Cursor keys and Enter do nothing in an empty table."""
    assert after(ViewState(), "down", "enter", shown=Shown()) == ViewState()


def test_sort_goes_through_all_columns_and_back() -> None:
    """`s` and the right arrow go forwards, `S` and the left arrow backwards."""
    state = ViewState()
    seen = []
    for _ in SORTS:
        seen.append(state.sort)
        state = after(state, "s")
    assert seen == list(SORTS)
    assert state.sort == SORTS[0]
    assert after(state, "right", "S") == state
    assert after(state, "left").sort == SORTS[-1]


def test_groups_go_around() -> None:
    """`g`: a row per name, per kind, per mapping."""
    assert [after(ViewState(), *["g"] * n).group for n in range(4)] == [*GROUPS, ""]


def test_enter_on_a_group_lists_its_mappings() -> None:
    """Escape leaves it, and the group is selected again."""
    shown = Shown(keys=["[anon]", "libc.so.6"], height=5)
    state = after(ViewState(group="name"), "down", "enter", shown=shown)
    assert (state.within, state.selected, state.map) == ("libc.so.6", None, None)
    assert after(state, "enter").map == MapState(0x1000)
    state = after(state, "escape")
    assert (state.within, state.selected) == (None, "libc.so.6")


def test_filter() -> None:
    """Keys go to the text until Enter; Escape clears it."""
    state = after(ViewState(selected=5), "/", "l", "q", "backspace", "i", "b")
    assert (state.filter, state.typing, state.ended) == ("lib", True, False)
    assert state.selected is None
    kept = after(state, "enter")
    assert (kept.filter, kept.typing) == ("lib", False)
    assert after(kept, "escape").filter == ""
    assert after(state, "escape") == ViewState()
    assert after(state, "up", "tab") == state


def test_toggles() -> None:
    """`h` and `p` switch on and off; any key leaves the help, and does nothing else."""
    for key, name in [("h", "idle"), ("p", "paused"), (" ", "paused"), ("?", "help")]:
        state = after(ViewState(), key)
        assert getattr(state, name) is True
        assert after(state, key) == ViewState()
    assert after(ViewState(help=True), "p") == ViewState()


def test_q_ends_everywhere_except_in_the_filter() -> None:
    """Also in the help and in the page map."""
    for state in (ViewState(), ViewState(help=True), ViewState(map=MapState(0x1000))):
        assert after(state, "q").ended
    assert not after(ViewState(typing=True), "q").ended


def test_intervals() -> None:
    """`+` is longer, `-` shorter, within bounds; any other interval has neighbours."""
    for one, other in pairwise(INTERVALS):
        assert after(ViewState(interval=one), "+").interval == other
        assert after(ViewState(interval=other), "-").interval == one
    assert after(ViewState(interval=INTERVALS[-1]), "+").interval == INTERVALS[-1]
    assert after(ViewState(interval=INTERVALS[0]), "-").interval == INTERVALS[0]
    assert after(ViewState(interval=0.3), "=").interval == 0.5
    assert after(ViewState(interval=0.01), "-").interval == 0.01
    assert after(ViewState(interval=300), "+").interval == 300


def test_cursor_in_the_page_map() -> None:
    """It moves by cells and by lines, and stays on the map."""
    state = ViewState(map=MapState(0x1000))

    def cursor(*keys: str) -> int:
        made = after(state, *keys, shown=MAP).map
        assert made is not None
        return made.cursor

    assert cursor("right") == 16
    assert cursor("right", "left", "left") == 0
    assert cursor("down") == 256
    assert cursor("end") == 1023
    assert cursor("end", "right", "home") == 0


def test_zoom() -> None:
    """Enter shows a fourth about the cursor; Backspace goes back, then out."""
    state = after(ViewState(map=MapState(0x1000)), "down", "down", "enter", shown=MAP)
    assert state.map == MapState(0x1000, first=384, pages=256, cursor=512)
    deeper = after(state, *["enter"] * 9, shown=MAP).map
    assert deeper is not None
    assert deeper.pages == MAP.columns
    whole = after(state, "backspace", shown=MAP)
    assert whole.map == MapState(0x1000, cursor=512)
    assert after(whole, "backspace", shown=MAP).map is None
    assert after(state, "escape", shown=MAP).map is None


def test_zoomed_map_follows_the_cursor() -> None:
    """The cursor never leaves the part that is shown."""
    state = after(ViewState(map=MapState(0x1000)), "enter", shown=MAP)
    for key in ("end", "home", "pagedown", "down", "up", "left"):
        state = after(state, key, shown=MAP)
        page_map = state.map
        assert page_map is not None
        assert page_map.first <= page_map.cursor < page_map.first + page_map.pages
        assert 0 <= page_map.first <= MAP.pages - page_map.pages


def test_keys_of_top_sort() -> None:
    """P by the rate and M by the memory, if the window shows that column."""
    assert after(ViewState(sort="since"), "P").sort == "rate"
    assert after(ViewState(), "M").sort == "present"
    assert after(ViewState(), ">").sort == "since"
    assert after(ViewState(), ">", "<").sort == "rate"
    narrow = ROWS._replace(sorts=("rate", "since"))
    assert after(ViewState(), "M", shown=narrow).sort == "rate"


def test_keys_without_a_meaning_change_nothing() -> None:
    """In the table and in the map."""
    for key in ("x", "é", "tab", "1"):
        assert after(ViewState(), key) == ViewState()
        state = ViewState(map=MapState(0x1000))
        assert after(state, key, shown=MAP) == state


SHOWN_AS = {
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "enter": "Enter",
    "escape": "Esc",
    "backspace": "Backspace",
    " ": "space",
}


def keys_with_an_effect(state: ViewState, shown: Shown) -> set[str]:
    """Return the keys that change a state, by trying every key."""
    every = [*SHOWN_AS, *map(chr, range(33, 127))]
    return {key for key in every if press(state, key, shown) != state}


@pytest.mark.parametrize(
    ("state", "shown", "least"),
    [
        (ViewState(selected=0x2000, filter="x"), ROWS, 20),
        (ViewState(map=MapState(0x1000, 256, 256, 500)), MAP, 15),
    ],
)
def test_help_names_every_key(state: ViewState, shown: Shown, least: int) -> None:
    """Whatever has an effect is in the list that ? shows, and that fits 80x24."""
    lines = [line.plain for line in help_screen.lines()]
    words = {
        word
        for line in lines
        for word in line.replace(",", " ").split()
        if line.startswith("  ")
    }
    keys = keys_with_an_effect(state, shown)
    assert len(keys) >= least
    known = {SHOWN_AS.get(key, key) for key in keys - {"?"}}
    assert known - words == set()
    assert len(lines) <= 21
    assert max(map(len, lines)) <= 80
