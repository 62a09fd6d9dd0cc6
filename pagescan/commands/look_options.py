"""The options of `watch` and `record` that say when to look, and at what cost."""

from collections.abc import Callable
from typing import Any

import click

from pagescan.commands.values import PERCENT, SECONDS, whole

Command = Callable[..., Any]


def look_options(function: Command) -> Command:
    """Add -i, -n, --duration and --budget to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option(
        "-i",
        "--interval",
        type=SECONDS,
        metavar="S",
        default="1",
        help="Seconds between looks (1).",
    ),
    click.option(
        "-n",
        "--count",
        type=whole(1),
        metavar="N",
        help="End after N looks.",
    ),
    click.option("--duration", type=SECONDS, metavar="S", help="End after S seconds."),
    click.option(
        "--budget",
        type=PERCENT,
        metavar="PERCENT",
        help="The most of the target's processor time that tracking may cost: tracks a"
        " random part of its memory, and estimates the rest.",
    ),
)
