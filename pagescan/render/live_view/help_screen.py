"""The help of the live view: each key, and what the columns mean."""

from rich.text import Text

from pagescan.render.live_view import paint

_KEYS = (
    ("↑ ↓ or k j", "select a mapping; also PgUp PgDn Home End"),
    ("Enter", "its page map; of a group, its mappings"),
    ("Esc Backspace", "back"),
    ("s S < > P M ← →", "sort by rate (P), since, growth, present (M) or address"),
    ("/", "show only names or addresses with this text"),
    ("h", "show or hide mappings that were never written, or are gone"),
    ("g", "one row per name, per kind of memory, per mapping"),
    ("w", "the functions that wrote each row, or the mapping, of late"),
    ("p or space", "pause: no looks, no cost; the next look finds every write"),
    ("+ = or -", "a longer or shorter interval between looks"),
    ("q  Ctrl-C", "quit; nothing stays protected"),
)
_MAP_KEYS = (
    ("↑ ↓ ← →", "move, also PgUp PgDn Home End"),
    ("Enter z", "zoom in"),
    ("Backspace Z", "zoom out"),
)
_MEANINGS = (
    ("per s", "distinct pages written in the last look, in bytes per second"),
    ("since", "the sum of all looks"),
    ("growth", "present now, less what was present at the start"),
    ("where", "its populated pages, without holes; see the legend"),
)


_OF_PROCESSES = {
    "↑ ↓ or k j": "select a process; also PgUp PgDn Home End",
    "Enter": "its mappings; Esc shows all processes again",
    "/": "show only processes with this text in their name or pid",
    "h": "show or hide processes that have gone, or are not tracked",
    "s S < > P M ← →": "sort by pid, rate (P), since, present (M) or growth",
}
_NOT_OF_PROCESSES = ("Esc Backspace", "g", "w")
_GROUP_MEANINGS = (
    ("process", "its role, if its command line tells it, or else its name"),
    *_MEANINGS[:3],
    ("swapped", "in windows of 90 columns, if any process has swapped pages"),
)


def lines() -> list[Text]:
    """Return the lines of the help for a table whose rows are mappings."""
    found = [Text("Keys", style="bold")]
    found += [_line(key, word) for key, word in _KEYS]
    found += [Text("In the page map", style="bold")]
    found += [_line(key, word) for key, word in _MAP_KEYS]
    found += [Text("Columns", style="bold")]
    found += [_line(name, word) for name, word in _MEANINGS]
    return found


def lines_of_group() -> list[Text]:
    """Return the lines of the help for a table whose rows are processes."""
    found = [Text("Keys; each row is a process", style="bold")]
    found += [
        _line(key, _OF_PROCESSES.get(key, word))
        for key, word in _KEYS
        if key not in _NOT_OF_PROCESSES
    ]
    found += [Text("Columns", style="bold")]
    found += [_line(name, word) for name, word in _GROUP_MEANINGS]
    words = "In the sums, memory that processes share counts once."
    return [*found, Text(), Text(words)]


def _line(key: str, word: str) -> Text:
    return Text.assemble((f"  {key:<16}", paint.RATE), word)
