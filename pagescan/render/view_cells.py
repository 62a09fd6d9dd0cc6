"""The cells of tables of views and answers: the forms of values for people."""

from typing import Any

from pagescan.model.units import format_address, format_share, format_size


def plain_text(value: Any) -> str:  # noqa: ANN401 - any of the fields
    """Return a value as it is; "-" for None, here and below."""
    return "-" if value is None else str(value)


def size_text(value: Any) -> str:  # noqa: ANN401 - as above
    """Return bytes in a unit that fits."""
    return "-" if value is None else format_size(round(value))


def rate_text(value: Any) -> str:  # noqa: ANN401 - as above
    """Return bytes per second in a unit that fits."""
    return "-" if value is None else f"{size_text(value)}/s"


def growth_text(value: Any) -> str:  # noqa: ANN401 - as above
    """Return bytes with a sign, except zero."""
    return f"+{size_text(value)}" if value and value > 0 else size_text(value)


def share_text(value: Any) -> str:  # noqa: ANN401 - as above
    """Return a share from 0 to 1 in percent."""
    return "-" if value is None else format_share(value)


def address_text(value: Any) -> str:  # noqa: ANN401 - as above
    """Return an address in hexadecimal."""
    return "-" if value is None else format_address(value)
