"""Draws small charts with block characters: bars of a history, heat of a mapping."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pagescan.model.memory import Mapping

_BLOCKS = " ▁▂▃▄▅▆▇█"
_CELLS = 240
_FADE = 0.6
_UNITS = "KMGTPE"


def bars(values: Iterable[float], width: int) -> str:
    """Return the last `width` values as bars; the highest bar fills its cell."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    text = "".join(_block(value / top if top else 0.0) for value in shown)
    return text.rjust(width)


def _block(share: float) -> str:
    """Return the block character for a share, 0 to 1; anything above 0 is visible."""
    if share <= 0:
        return _BLOCKS[0]
    return _BLOCKS[max(1, min(8, round(share * 8)))]


def compact(count: int) -> str:
    """Return bytes in at most five characters: "0", "812K", "1.5M", "23G"."""
    if count < 1024:
        return str(count)
    power = 1
    while count >= 1000 * 1024**power and power < len(_UNITS):
        power += 1
    value = count / 1024**power
    return f"{value:.{1 if value < 10 else 0}f}{_UNITS[power - 1]}"


@dataclass(slots=True)
class Heat:
    """The recently written places of a mapping, in a fixed number of cells."""

    cells: list[float] = field(default_factory=lambda: [0.0] * _CELLS)

    def fade(self) -> None:
        """Reduce the weight of older writes."""
        self.cells = [cell * _FADE if cell > 0.02 else 0.0 for cell in self.cells]

    def add(self, mapping: Mapping, start: int, end: int) -> None:
        """Mark [start, end) of the mapping as written."""
        scale = _CELLS / mapping.length
        low = max(0, int((start - mapping.start) * scale))
        high = min(_CELLS - 1, int((end - 1 - mapping.start) * scale))
        for cell in range(low, high + 1):
            share = min(1.0, (end - start) * scale)
            self.cells[cell] = min(1.0, self.cells[cell] + max(share, 0.12))

    def draw(self, width: int) -> str:
        """Return the cells as a strip of `width` characters, borders included."""
        inner = max(1, width - 2)
        shares = [
            max(self.cells[cell * _CELLS // inner : -(-(cell + 1) * _CELLS // inner)])
            for cell in range(inner)
        ]
        return "▕" + "".join(_block(share) for share in shares) + "▏"
