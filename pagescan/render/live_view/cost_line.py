"""The line of the live view about the cost; a high cost is a warning with a remedy."""

from collections.abc import Sequence

from rich.text import Text

from pagescan.model.looks import Tick, WatchedFacts, costs_much
from pagescan.model.results import Cost
from pagescan.model.units import format_seconds, format_share, plural
from pagescan.render.live_view import paint

_HEAD = "cost: "


def cost_of_target(
    watched: WatchedFacts, tick: Tick | None, width: int, *, sampled: bool
) -> Text:
    """Return the costs of one target, as many as fit, the weightiest first.

    Args:
        watched: The target.
        tick: The last look; None before the first one.
        width: The width of the window.
        sampled: Whether samples of the writers are taken, which cost, too.
    """
    parts = [f"stopped once {format_seconds(watched.stopped_ns / 1e9)}"]
    cost = tick.look.cost if tick and tick.look else None
    if tick is None or cost is None:
        return cost_line([], parts, width)
    warning: Sequence[str] = ()
    if cost.target_share is not None:
        said = share_of(cost, tick.seconds, "its")
        if watched.budget is None:
            warning = warnings(cost, tick.seconds, "its", sampled=sampled)
        elif tick.total_share is not None:
            share = format_share(tick.total_share)
            said = f"{share} of its processor time, budget {watched.budget:g} %"
        if not warning:
            parts.insert(0, said)
    parts.append(f"longest wait {format_seconds(cost.max_wait_ns / 1e9)}")
    if watched.untracked:
        parts.append(f"{plural(watched.untracked, 'mapping')} not tracked")
    calls = plural(cost.ioctls, "call")
    parts.append(f"scan {format_seconds(cost.scan_ns / 1e9)}, {calls}")
    return cost_line(warning, parts, width)


def share_of(cost: Cost, seconds: float, whose: str) -> str:
    """Return the processor time that tracking took in a look, in words.

    Args:
        cost: The cost of the look; it has a share.
        seconds: The time since the look before.
        whose: The owner of the processor time: "its" or "their".
    """
    spent = format_seconds((cost.target_ns or 0) / 1e9 / max(seconds, 1e-6))
    return (
        f"{spent}/s, {format_share(cost.target_share or 0.0)} of {whose} processor time"
    )


def warnings(
    cost: Cost, seconds: float, whose: str, *, sampled: bool = False
) -> Sequence[str]:
    """Return the texts that warn of a high cost, the longest first; none if it is low.

    Each has the remedy. The arguments are those of `share_of` and `cost_of_target`.
    """
    if cost.target_share is None or not costs_much(cost, seconds):
        return ()
    share = format_share(cost.target_share)
    remedy = "w ends the samples" if sampled else "--budget 2 keeps that to 2 %"
    short = "w ends that" if sampled else "--budget 2 bounds that"
    whole = f"{share} of {whose} processor time: {remedy}"
    return (
        f"{whole}, a longer interval (+) costs less",
        whole,
        f"{share} of {whose} time: {remedy}",
        f"{share}: {short}",
    )


def cost_line(warning: Sequence[str], parts: Sequence[str], width: int) -> Text:
    """Return the line: the longest warning that leaves room, and the parts that fit.

    Args:
        warning: The texts of a warning, the longest first; empty: none.
        parts: The other facts, the weightiest first.
        width: The width of the window.
    """
    line = Text.assemble((_HEAD, "dim"))
    if warning:
        left = width - len(_HEAD) - len("; ") - len(parts[0])
        text = next((text for text in warning if len(text) <= left), warning[-1])
        line.append(text, style=paint.WARNING)
    for part in parts:
        joined = part if line.plain == _HEAD else f"; {part}"
        if line.cell_len + len(joined) > width and line.plain != _HEAD:
            break
        line.append(joined, style="dim")
    return line
