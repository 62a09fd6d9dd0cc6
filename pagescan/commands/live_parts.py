"""Parts of both live views, of one target and of a group: keys, facts, counting."""

import math
import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from pagescan.model.looks import WatchedFacts
from pagescan.render.live_view.screen import Screen
from pagescan.render.live_view.view_state import ViewState
from pagescan.tracking.ticks import Inputs, Limits
from pagescan.tracking.tracking import Tracking

_COUNTED_DOWN = 3.0
"""Seconds between looks from which on the view tells when the next one comes."""


class View(Protocol):
    """A live view that takes keys, and tells when the next look comes."""

    state: ViewState
    seconds_left: int | None

    def press(self, keys: Sequence[str]) -> None:
        """Do what the keys say."""


def keyboard_inputs(
    view: View, screen: Screen, limits: Limits, then: Callable[[], None] | None = None
) -> Inputs:
    """Return the handlers of the keyboard, if there is one.

    Args:
        view: Takes the keys.
        screen: Has the keyboard.
        limits: The interval and the pause: keys change them.
        then: Called after each key, before the screen is drawn.
    """
    keyboard = screen.keyboard
    if keyboard is None:
        return {}

    def serve() -> bool:
        keys = keyboard.read()
        if keys is None:
            return False
        view.press(keys)
        limits.interval, limits.paused = view.state.interval, view.state.paused
        if view.state.ended:
            signal.raise_signal(signal.SIGINT)  # like Ctrl-C: the normal end
        if then is not None:
            then()
        screen.refresh()
        return True

    return {keyboard.fd: serve}


def countdown(view: View, screen: Screen, limits: Limits) -> Callable[[float], float]:
    """Return what draws the seconds to the next look while the loop waits for it.

    Args:
        view: Shows them.
        screen: Is drawn when they change.
        limits: The interval and the pause. A short interval has no countdown.
    """

    def show(left: float) -> float:
        counts = limits.interval >= _COUNTED_DOWN and not limits.paused
        seconds = math.ceil(left) if counts and left != math.inf else None
        if seconds != view.seconds_left:
            view.seconds_left = seconds
            screen.refresh()
        return math.inf if seconds is None else left - seconds + 1

    return show


def watched_facts(tracking: Tracking, budget: float | None) -> WatchedFacts:
    """Return what the head of a view says about a target; `budget`: in percent."""
    return WatchedFacts(
        target=tracking.target.facts,
        tracked_bytes=tracking.armed.tracked_bytes,
        untracked=len(tracking.armed.untracked),
        stopped_ns=tracking.cost.stopped_ns,
        budget=budget,
    )
