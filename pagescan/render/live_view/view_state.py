"""The state of the live view, and what each key makes of it; pure, no I/O.

A key and what the screen shows at that moment give the next state. Nothing here reads
a terminal or a process, so each key can be tested without either.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Key = int | str
"""A row's identity: the start of its mapping, or the name of its group."""

SORTS = ("rate", "since", "growth", "present", "address")
GROUPS = ("", "name", "kind")
INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ZOOM = 4


class MapState(NamedTuple):
    """The part of one mapping that its page map shows; pages without the holes.

    Attributes:
        start: The start of the mapping.
        first: The first page shown.
        pages: How many pages are shown; 0: all.
        cursor: The page that is selected.
    """

    start: int
    first: int = 0
    pages: int = 0
    cursor: int = 0


class ViewState(NamedTuple):
    """The user's choices.

    Attributes:
        interval: Seconds between looks.
        sort: The column that orders the rows.
        filter: Text that rows must have in their name or address.
        typing: Whether keys go to the filter.
        idle: Whether mappings that were never written are shown.
        writers: Whether each row has the function that wrote most of it.
        group: What the mappings of a row have in common: "", name or kind.
        within: The group whose members are shown; None: all rows.
        selected: The selected row; None: whichever is the first.
        map: The page map on the screen; None: the table.
        help: Whether the help is shown.
        paused: Whether no looks are taken.
        ended: Whether the user wants to quit.
    """

    interval: float = 1.0
    sort: str = "rate"
    filter: str = ""
    typing: bool = False
    idle: bool = False
    writers: bool = False
    group: str = ""
    within: str | None = None
    selected: Key | None = None
    map: MapState | None = None
    help: bool = False
    paused: bool = False
    ended: bool = False


class Shown(NamedTuple):
    """The content of the screen at the moment of a key.

    Attributes:
        keys: The rows of the table, in order; those that are scrolled away too.
        height: The number of rows that fit.
        pages: The number of pages in the page map.
        columns: The number of cells in a line of the page map.
        cells: The number of its cells.
        sorts: The columns that can sort the rows: those that the window shows.
    """

    keys: Sequence[Key] = ()
    height: int = 1
    pages: int = 0
    columns: int = 1
    cells: int = 1
    sorts: Sequence[str] = SORTS


def press(state: ViewState, key: str, shown: Shown) -> ViewState:
    """Return the state after a key; a key without a meaning changes nothing."""
    if state.typing:
        return _type(state, key)
    if state.help:
        return state._replace(help=False, ended=key == "q")
    if general := _GENERAL.get(key):
        return general(state)
    if state.map is not None:
        return _move_in_map(state, state.map, key, shown)
    return _move_in_table(state, key, shown)


def _type(state: ViewState, key: str) -> ViewState:
    """Edit the filter: Enter keeps it, Escape clears it."""
    if key == "enter":
        return state._replace(typing=False)
    if key == "escape":
        return state._replace(typing=False, filter="")
    if key == "backspace":
        return state._replace(filter=state.filter[:-1])
    if len(key) == 1 and key.isprintable():
        return state._replace(filter=state.filter + key, selected=None)
    return state


def _other_interval(state: ViewState, *, longer: bool) -> ViewState:
    if longer:
        others = [value for value in INTERVALS if value > state.interval]
        return state._replace(interval=min(others, default=state.interval))
    others = [value for value in INTERVALS if value < state.interval]
    return state._replace(interval=max(others, default=state.interval))


_GENERAL: dict[str, Callable[[ViewState], ViewState]] = {
    "q": lambda state: state._replace(ended=True),
    "?": lambda state: state._replace(help=True),
    "p": lambda state: state._replace(paused=not state.paused),
    " ": lambda state: state._replace(paused=not state.paused),
    "+": lambda state: _other_interval(state, longer=True),
    "=": lambda state: _other_interval(state, longer=True),
    "-": lambda state: _other_interval(state, longer=False),
    "w": lambda state: state._replace(writers=not state.writers),
}


def _move_in_table(state: ViewState, key: str, shown: Shown) -> ViewState:
    if chosen := _TABLE.get(key):
        return chosen(state)
    if key in _SORTING or _SORTED_BY.get(key) in shown.sorts:
        return state._replace(sort=_sort(state, key, shown))
    if key == "enter":
        return _enter(state, shown)
    if key in ("escape", "backspace"):
        return _leave(state)
    steps = {
        "up": -1,
        "k": -1,
        "down": 1,
        "j": 1,
        "pageup": -shown.height,
        "pagedown": shown.height,
        "home": -len(shown.keys),
        "end": len(shown.keys),
    }
    if key not in steps or not shown.keys:
        return state
    index = index_of(state, shown.keys) + steps[key]
    index = max(0, min(index, len(shown.keys) - 1))
    return state._replace(selected=shown.keys[index])


def _sort(state: ViewState, key: str, shown: Shown) -> str:
    """Return the column that sorts after a key."""
    if key in _SORTED_BY:
        return _SORTED_BY[key]
    return _next(shown.sorts, state.sort, _SORTING[key])


def _next(values: Sequence[str], value: str, step: int = 1) -> str:
    """Return the next value; the first one, if this one is not among them."""
    if value not in values:
        return values[0]
    return values[(values.index(value) + step) % len(values)]


_SORTING = {"s": 1, "right": 1, ">": 1, "S": -1, "left": -1, "<": -1}
"""Steps through the columns that sort."""
_SORTED_BY = {"P": "rate", "M": "present"}
"""What top sorts by the time, and by the memory, of a process."""

_TABLE: dict[str, Callable[[ViewState], ViewState]] = {
    "/": lambda state: state._replace(typing=True),
    "h": lambda state: state._replace(idle=not state.idle),
    "g": lambda state: state._replace(
        group=_next(GROUPS, state.group), within=None, selected=None
    ),
}


def _enter(state: ViewState, shown: Shown) -> ViewState:
    """Open the selected row: a group's members, or a mapping's page map."""
    if not shown.keys:
        return state
    key = shown.keys[index_of(state, shown.keys)]
    if isinstance(key, str):
        return state._replace(within=key, selected=None)
    return state._replace(map=MapState(key), selected=key)


def _leave(state: ViewState) -> ViewState:
    """Go one step back: out of a group, else without the filter."""
    if state.within is not None:
        return state._replace(within=None, selected=state.within)
    return state._replace(filter="") if state.filter else state._replace(selected=None)


def index_of(state: ViewState, keys: Sequence[Key]) -> int:
    """Return the place of the selected row; 0 if it is not among the rows."""
    if state.selected is None:
        return 0
    try:
        return keys.index(state.selected)
    except ValueError:
        return 0


def _move_in_map(
    state: ViewState, page_map: MapState, key: str, shown: Shown
) -> ViewState:
    """Move the cursor by cells and lines, and zoom."""
    if key == "escape":
        return state._replace(map=None)
    seen = page_map.pages or shown.pages
    per_cell = max(1, -(-seen // max(1, shown.cells)))
    line = per_cell * shown.columns
    steps = {
        "left": -per_cell,
        "right": per_cell,
        "up": -line,
        "down": line,
        "pageup": -seen,
        "pagedown": seen,
        "home": -shown.pages,
        "end": shown.pages,
    }
    if key in steps:
        cursor = max(0, min(page_map.cursor + steps[key], shown.pages - 1))
        return state._replace(map=_scrolled(page_map._replace(cursor=cursor), shown))
    if key in ("enter", "z"):
        return state._replace(map=_zoomed(page_map, max(1, seen // _ZOOM), shown))
    if key in ("backspace", "Z"):
        if not page_map.pages:
            return state._replace(map=None)
        return state._replace(map=_zoomed(page_map, seen * _ZOOM, shown))
    return state


def _zoomed(page_map: MapState, pages: int, shown: Shown) -> MapState:
    """Show another number of pages about the cursor; at most one cell per page."""
    pages = max(pages, shown.columns)
    if pages >= shown.pages:
        return page_map._replace(first=0, pages=0)
    first = max(0, min(page_map.cursor - pages // 2, shown.pages - pages))
    return page_map._replace(first=first, pages=pages)


def _scrolled(page_map: MapState, shown: Shown) -> MapState:
    """Scroll so far that the cursor is on the screen."""
    if not page_map.pages:
        return page_map
    first = page_map.first
    if page_map.cursor < first:
        first = page_map.cursor
    elif page_map.cursor >= first + page_map.pages:
        first = page_map.cursor - page_map.pages + 1
    return page_map._replace(first=max(0, min(first, shown.pages - page_map.pages)))
