"""Draws small charts with block characters: bars, and shares on a log scale."""

import math
from collections.abc import Iterable

BLOCKS = " ▁▂▃▄▅▆▇█"
_UNITS = "KMGTPE"
_STEPS_PER_DECADE = 7 / 3  # from ▁, a thousandth, to █, all


def bars(values: Iterable[float], width: int) -> str:
    """Return the last `width` values as bars; the highest bar fills its cell."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    text = "".join(_bar(value / top if top else 0.0) for value in shown)
    return text.rjust(width)


def tall_bars(values: Iterable[float], width: int, height: int) -> list[str]:
    """Return a chart of several lines of the last values, each some cells wide.

    The highest bar fills all lines.
    """
    shown = list(values)[-width:]
    top = max(shown, default=0.0) or 1.0
    wide = max(1, width // max(1, len(shown)))
    eighths = [round(value / top * 8 * height) or (value > 0) for value in shown]
    return [
        "".join(
            BLOCKS[max(0, min(8, level - 8 * below))] * wide for level in eighths
        ).rjust(width)
        for below in reversed(range(height))
    ]


def _bar(share: float) -> str:
    """Return the block character for a share, 0 to 1; anything above 0 is visible."""
    if share <= 0:
        return BLOCKS[0]
    return BLOCKS[max(1, min(8, round(share * 8)))]


def log_block(share: float) -> str:
    """Return the block character for a share on a log scale: ▁ 0.1 %, ▃ 1 %, █ all.

    So the strip of a mapping does not look full before most of its pages are written.
    """
    if share <= 0:
        return BLOCKS[0]
    if share >= 1:
        return BLOCKS[8]
    level = round(8 + _STEPS_PER_DECADE * math.log10(share))
    return BLOCKS[max(1, min(7, level))]


def compact(count: int) -> str:
    """Return bytes in at most five characters: "0", "812K", "1.5M", "23G"."""
    if count < 0:
        return f"-{compact(-count)}"
    if count < 1024:
        return str(count)
    power = 1
    while count >= 999.5 * 1024**power and power < len(_UNITS):
        power += 1
    value = count / 1024**power
    return f"{value:.{1 if value < 9.95 else 0}f}{_UNITS[power - 1]}"


def signed(count: int) -> str:
    """Return bytes with their sign: "+1.5M", "-812K", "0"."""
    return f"+{compact(count)}" if count > 0 else compact(count)
