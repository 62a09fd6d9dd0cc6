"""Parts of both live views, of one target and of a group: keys, facts, counting."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pagescan.console.context import Context
from pagescan.model.looks import WatchedFacts
from pagescan.render.live_view.messages import Messages
from pagescan.render.live_view.screen import Screen
from pagescan.render.live_view.view_state import ViewState
from pagescan.session.watched import Terms
from pagescan.tracking.ticks import Inputs, Limits
from pagescan.tracking.tracking import Tracking

_COUNTED_DOWN = 3.0
"""Seconds between looks from which on the view tells when the next one comes."""


class View(Protocol):
    """A live view that takes keys, and tells when the next look comes."""

    state: ViewState
    seconds_left: int | None
    messages: Messages

    def press(self, keys: Sequence[str]) -> None:
        """Do what the keys say."""


@contextlib.contextmanager
def said_in(view: View, terms: Terms, context: Context) -> Iterator[None]:
    """Show messages about the target in a view, and print them when it has closed.

    Args:
        view: The view; it is shown within the block.
        terms: Their messages.
        context: The options of every command.
    """
    say, detail, messages = terms.say, terms.detail, view.messages
    if not context.quiet:
        terms.say = messages.say
        if context.verbose:
            terms.detail = messages.say
    try:
        yield
    finally:
        terms.say, terms.detail = say, detail
        if messages.dropped:
            say(f"of the messages {messages.dropped} older ones are left out")
        for text in messages.kept:
            say(text)


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
