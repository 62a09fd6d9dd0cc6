"""Makes the lines about ticks that `watch` writes to stderr."""

from pagescan.model.looks import MUCH, Tick, summary_of
from pagescan.model.results import Cost, Estimate, Summary
from pagescan.model.units import format_seconds, format_share, format_size, plural

SAMPLED_ROWS = (
    "a row has what was found in the part of the memory that --budget tracks; only"
    " sums are estimates of the whole"
)


def tick_line(tick: Tick) -> str:
    """Return the line for one tick: the pages written, and the rate."""
    summary = summary_of(tick.look) if tick.look else tick.totals
    rate = format_size(int(summary.bytes / max(tick.seconds, 1e-6)))
    estimate = tick.look.estimate if tick.look else None
    about = f" ({words_of(estimate)})" if estimate else ""
    return (
        f"tick {tick.number}: {plural(summary.pages, 'page')} written{about}, {rate}/s"
    )


def words_of(estimate: Estimate) -> str:
    """Return the words for the accuracy of an estimate."""
    return (
        f"estimated, {estimate.low} to {estimate.high} at 95 %"
        f" from {estimate.share:.0%} of the memory"
    )


def why_ended(end: str | None, *, by_key: bool = False) -> str:
    """Return the words for the end of a watch."""
    return {
        "interrupted": "ended by q" if by_key else "interrupted",
        "count": "all requested looks are done",
        "duration": "the time is up",
        "exited": "the target has ended",
        "exec": "the target runs another program now (exec)",
        "lost": "tracking was lost",
    }[end or "interrupted"]


def end_line(
    tick: Tick, ending: Cost, *, by_key: bool = False, remedy: str = ""
) -> str:
    """Return the last line: why the watch ended, totals, and added mappings.

    Args:
        tick: The last tick.
        ending: The cost of the end.
        by_key: Whether a key has ended it, which is no interruption.
        remedy: What would make the cost less; it is said if all looks cost much.
    """
    why = why_ended(tick.end, by_key=by_key)
    cost = ""
    if tick.total_share is not None and tick.total_ns:
        cost = f"; {cost_words(tick.total_share, tick.total_ns)}"
        if remedy and tick.total_share > MUCH:
            cost += f" ({remedy})"
    if ending.mappings_added:
        cost += f"; tracking left {plural(ending.mappings_added, 'more mapping')}"
    if tick.unseen_ns is not None:
        cost += f"; the last look was {format_seconds(tick.unseen_ns / 1e9)} before"
    return (
        f"{why}: {written_words(tick.totals, estimated=tick.estimated)} in"
        f" {plural(tick.number, 'look')}{cost}"
    )


def written_words(totals: Summary, *, estimated: bool) -> str:
    """Return the words for what was written in all looks together."""
    written = f"{plural(totals.pages, 'page')} ({format_size(totals.bytes)}) written"
    return f"{written}, estimated," if estimated else written


def cost_words(share: float, cost_ns: int) -> str:
    """Return the words for the cost to the target; the share is 0 to 1."""
    return (
        f"tracking cost it about {format_seconds(cost_ns / 1e9)} of processor time,"
        f" {format_share(share)} of its own"
    )
