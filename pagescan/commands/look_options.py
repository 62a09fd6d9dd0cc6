"""The options of `watch` and `record` that say when to look, and at what cost."""

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def look_options(function: Command) -> Command:
    """Add -i, -n, --duration and --budget to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option(
        "-i", "--interval", metavar="S", default="1", help="Seconds between looks (1)."
    ),
    click.option(
        "-n",
        "--count",
        type=click.IntRange(min=1),
        metavar="N",
        help="End after N looks.",
    ),
    click.option("--duration", metavar="S", help="End after S seconds."),
    click.option(
        "--budget",
        metavar="PERCENT",
        help="The most of the target's processor time that tracking may cost: tracks a"
        " random part of its memory, and estimates the rest.",
    ),
)
