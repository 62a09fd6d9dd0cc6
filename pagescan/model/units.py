"""Parses and formats the values of users: sizes, addresses, times, names."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from pagescan.model.errors import UsageError

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(
    r"(0[xX][0-9a-fA-F]{1,32}|[0-9]{1,32})([KMGT]?)(?:i?B)?", re.IGNORECASE
)
_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_TIME = re.compile(r"([0-9]*\.?[0-9]+)\s*(ns|us|µs|ms|s|m|h)?")
_PERCENT = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+\.")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_SUBSECONDS = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"))
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def parse_size(text: str) -> int:
    """Return the bytes of "4096", "0x1000", "64K" or "2GiB"; fractions are refused."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a size: {text!r}", hint="as in 65536, 64K or 2G")
    number, unit = match.groups()
    return int(number, 0 if _HEX.fullmatch(number) else 10) * _FACTORS[unit.upper()]


def format_size(count: int) -> str:
    """Return a size for people: in binary units, with about three digits."""
    value = float(count)
    for unit in _BINARY:
        if abs(value) < 1023.5 or unit == _BINARY[-1]:
            break
        value /= 1024
    if unit == "B":
        return f"{count} B"
    return f"{value:.1f} {unit}" if abs(value) < 99.95 else f"{value:.0f} {unit}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 page", "2 pages", "2 processes"."""
    if count == 1:
        return f"{count} {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"


def parse_address(text: str) -> int:
    """Return the address in "4096" or "0x1000"; ValueError otherwise."""
    text = text.strip()
    if _HEX.fullmatch(text):
        return int(text, 16)
    if text.isascii() and text.isdigit():
        return int(text)
    raise ValueError(text)


def format_address(address: int) -> str:
    """Return an address in the format of JSON and tables: "0x7f2a40000000"."""
    return f"{address:#x}"


def parse_seconds(text: str) -> float:
    """Return the seconds in "0.5", "200us", "1.5ms", "10s" or "2m"; above zero."""
    match = _TIME.fullmatch(text.strip())
    if match is not None:
        seconds = float(match[1]) * _SECONDS[match[2] or "s"]
        if seconds > 0 and math.isfinite(seconds):
            return seconds
    raise UsageError(
        f"not a time above zero: {text!r}", hint="as in 1, 0.2, 500ms or 2m"
    )


def format_seconds(seconds: float) -> str:
    """Return a duration with the unit that fits it: "214 µs", "1.3 ms", "2.0 s"."""
    if not seconds:
        return "0 s"
    for limit, factor, unit in _SUBSECONDS:
        if seconds < limit * 0.9995:
            value = seconds * factor
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    return f"{seconds:.1f} s"


def format_duration(seconds: float) -> str:
    """Return a duration of any length: "12.3 s", "10 min", "3 h 20 min", "12 days"."""
    if seconds < 100:
        return format_seconds(seconds)
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days"


def format_age(seconds: float) -> str:
    """Return how long ago something was, roughly: "12 s", "3 min", "5 h", "4 days"."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def format_share(share: float) -> str:
    """Return a share, 0 to 1, as a percentage of about two digits: "0.2 %", "13 %"."""
    percent = share * 100
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def parse_percent(text: str) -> float:
    """Return the percentage in "2", "0.5" or "2%": above 0 and at most 100."""
    number = text.strip().removesuffix("%").rstrip()
    if _PERCENT.fullmatch(number) and 0 < float(number) <= 100:
        return float(number)
    raise UsageError(
        f"not a percentage: {text!r} is not above 0 and at most 100",
        hint="as in 2, 0.5 or 2%",
    )


def format_time(moment: datetime) -> str:
    """Return a moment in UTC, by RFC 3339: "2026-01-02T03:04:05.678901Z"."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Return the moment in a text of `format_time`; ValueError for other texts."""
    moment = datetime.fromisoformat(text)  # strptime would load a file and a calendar
    if moment.tzinfo is not UTC:
        raise ValueError(f"not a time in UTC: {text!r}")
    return moment


_shown_in = "utf-8"


def show_in(encoding: str) -> None:
    """Set the terminal's encoding: `escape` replaces characters that it lacks."""
    global _shown_in  # noqa: PLW0603 - a process has one terminal
    _shown_in = encoding


def escape(text: str) -> str:
    r"""Return text that is safe to print: the target chooses its names and paths.

    Control characters, characters that change the direction of the text, lone
    surrogates, and characters that the terminal's encoding lacks become escapes like
    \x1b. So the text is one line, and moves no cursor.
    """
    if text.isprintable() and (_shown_in == "utf-8" or text.isascii()):
        return text
    return "".join(
        char if char.isprintable() and _has(_shown_in, char) else escape_character(char)
        for char in text
    )


def exactly(text: str, encoding: str) -> str:
    r"""Return text for programs: only bytes that are not UTF-8 are escaped, as \xe9."""
    if text.isascii():
        return text
    return "".join(
        char if _has(encoding, char) else escape_character(char) for char in text
    )


def _has(encoding: str, char: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def escape_character(char: str) -> str:
    """Return a character as an escape; a byte that was not UTF-8 as that byte."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)
