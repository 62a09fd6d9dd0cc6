"""Parsing and formatting of sizes, addresses, times and names."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from pagescan.model.errors import UsageError
from pagescan.model.units import (
    escape,
    format_address,
    format_seconds,
    format_size,
    format_time,
    parse_address,
    parse_seconds,
    parse_size,
    parse_time,
    plural,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("0x1000", 4096),
        ("64K", 65536),
        ("2g", 2 << 30),
        ("1MiB", 1 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Decimal and hexadecimal numbers, and binary units."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "1.5M", "-1", "0x", "1 K", "٣"])
def test_no_sizes(text: str) -> None:
    """Text that is no size is refused."""
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (300 << 20, "300 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (102_399, "100 KiB"),
        (-(300 << 20), "-300 MiB"),
        (1 - (1 << 20), "-1.0 MiB"),
    ],
)
def test_sizes_as_people_read_them(count: int, text: str) -> None:
    """Sizes are printed with about three digits and a binary unit."""
    assert format_size(count) == text


@given(st.integers(0, 2**64))
def test_addresses_round_trip(address: int) -> None:
    """A printed value can be parsed."""
    assert parse_address(format_address(address)) == address


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_times_round_trip(moment: datetime) -> None:
    """Times round-trip to the microsecond."""
    moment = moment.replace(tzinfo=UTC)
    assert parse_time(format_time(moment)) == moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1.0), (".5", 0.5), ("200us", 2e-4), ("1.5ms", 1.5e-3), ("2m", 120.0)],
)
def test_durations(text: str, seconds: float) -> None:
    """A number and a unit; without a unit, seconds."""
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e3", "", "s", "0ms"])
def test_no_durations(text: str) -> None:
    """A duration is above zero, finite, and a number."""
    with pytest.raises(UsageError):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (5e-9, "5.0 ns"),
        (9.96e-6, "10 µs"),
        (2.14e-4, "214 µs"),
        (1.3e-3, "1.3 ms"),
        (0.9996, "1.0 s"),
        (2.0, "2.0 s"),
    ],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    """Durations are printed in the unit that fits."""
    assert format_seconds(seconds) == text


@given(st.text())
def test_escaped_text_is_one_harmless_line(text: str) -> None:
    """No control byte is left, and printable text stays as it is."""
    shown = escape(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(1, "page", "1 page"), (0, "page", "0 pages"), (2, "process", "2 processes")],
)
def test_a_count_has_its_noun(count: int, noun: str, text: str) -> None:
    assert plural(count, noun) == text
