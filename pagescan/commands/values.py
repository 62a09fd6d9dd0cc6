"""The types of the values that options take: each refusal names its option.

A type of click's own would refuse a value in click's words, and name what is allowed in
the words of a mathematician. These say in one line what the option takes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pagescan.commands.completing import complete_categories
from pagescan.model.errors import UsageError
from pagescan.model.memory import CATEGORY_NAMES, NO_CATEGORY, Category
from pagescan.model.units import parse_percent, parse_seconds, parse_size

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # before click 8.4 the class takes no type

_T = TypeVar("_T")


def option_name(param: click.Parameter | None) -> str:
    """Return the longest name of an option, or what help calls an argument."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return (param and (param.metavar or f"{param.name}".upper())) or "the value"


def value_of(option: str, parse: Callable[[str], _T], text: str) -> _T:
    """Return the value of an option; UsageError names the option."""
    if not text:
        raise UsageError(f"{option} has an empty value")
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}", hint=error.hint) from error


class Value(_Type):
    """The value of an option in the format that a parser of pagescan reads."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the value; raise UsageError if the text has no such form."""
        if not isinstance(value, str):
            return value
        return value_of(option_name(param), self._parse, value)


SECONDS = Value("S", parse_seconds)
SIZE = Value("SIZE", parse_size)
PERCENT = Value("PERCENT", parse_percent)


def whole(least: int, most: int | None = None) -> Value:
    """Return the type of a whole number within limits."""
    limits = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        digits = text.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
            number = int(digits)
            if least <= number and (most is None or number <= most):
                return number
        raise UsageError(f"not a whole number {limits}: {text!r}")

    return Value("N", parse)


_MOST_DIGITS = 4000
"""Python reads no longer number."""


class Categories(_Type):
    """A comma-separated list of categories."""

    name = "A,B"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Category:
        """Return the bits; raise UsageError for an unknown name."""
        if isinstance(value, Category):
            return value
        bits = NO_CATEGORY
        for word in str(value).split(","):
            try:
                bits |= Category.parse(word.strip())
            except KeyError as error:
                known = " ".join(name for _, name in CATEGORY_NAMES)
                raise UsageError(
                    f"unknown category: {word.strip()!r}", hint=f"there are: {known}"
                ) from error
        return bits

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Offer the categories, behind those already typed."""
        return complete_categories(incomplete, (name for _, name in CATEGORY_NAMES))
