"""The help of the live view: each key, and what the columns mean."""

from rich.text import Text

from pagescan.render.live_view import paint

_KEYS = (
    ("↑ ↓ or k j", "select a mapping; also PgUp PgDn Home End"),
    ("Enter", "its page map; of a group, its mappings"),
    ("Esc Backspace", "back"),
    ("s S  ← →", "sort by rate, since, growth, present or address"),
    ("/", "show only names or addresses with this text"),
    ("h", "show or hide mappings that were never written, or are gone"),
    ("g", "one row per name, per kind of memory, per mapping"),
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


def lines() -> list[Text]:
    """Return the lines of the help."""
    found = [Text("Keys", style="bold")]
    found += [_line(key, word) for key, word in _KEYS]
    found += [Text("In the page map", style="bold")]
    found += [_line(key, word) for key, word in _MAP_KEYS]
    found += [Text("Columns", style="bold")]
    found += [_line(name, word) for name, word in _MEANINGS]
    return found


def _line(key: str, word: str) -> Text:
    return Text.assemble((f"  {key:<15}", paint.RATE), word)
