"""Parsing /proc/PID/maps, and selecting mappings by RANGE words."""

import errno
import os

import pytest
from hypothesis import given, strategies as st

from pagescan import native
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.memory import Mapping, Range
from pagescan.target.selection import Selection


def _mapping(start: int, end: int, name: str = "", page_size: int = 0) -> Mapping:
    return Mapping(start, end, "rw-p", 0, (0, 0), 0, name, page_size)


MAPPINGS = [
    _mapping(0x1000, 0x5000, "[heap]"),
    _mapping(0x5000, 0x9000),
    _mapping(0x400000, 0x800000, "/anon_hugepage (deleted)", 0x200000),
    _mapping(0x900000, 0x904000, "/lib/libc.so.6"),
]


def _lines(rows: native.MapsRows, text: bytes) -> list[tuple[int, int, str]]:
    return [
        (start, end, os.fsdecode(text[at : at + length]))
        for start, end, at, length in zip(
            rows.start, rows.end, rows.name_at, rows.name_length, strict=True
        )
    ]


def test_own_maps_as_python_reads_them() -> None:
    """The parser in C agrees with a split in Python on this process's own maps."""
    with open("/proc/self/maps", "rb") as maps:
        text = maps.read()
    expected = []
    for line in text.decode().splitlines():
        fields = line.split(None, 5)
        low, high = (int(word, 16) for word in fields[0].split("-"))
        expected.append((low, high, fields[5] if len(fields) > 5 else ""))
    assert _lines(native.parse_maps(text), text) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(1, 1 << 30),
            st.text(
                st.characters(codec="utf-8", exclude_characters="\n"), max_size=40
            ).map(str.strip),
        ),
        max_size=30,
    )
)
def test_any_names(rows: list[tuple[int, str]]) -> None:
    """A line is parsed correctly, whatever characters its name has."""
    at = 0x1000
    lines, expected = [], []
    for pages, name in rows:
        end = at + pages * 4096
        lines.append(f"{at:x}-{end:x} rw-p 00000000 08:01 42    {name}\n")
        expected.append((at, end, name))
        at = end + 4096
    text = "".join(lines).encode()
    assert _lines(native.parse_maps(text), text) == expected


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_read(text: bytes) -> None:
    """Nothing makes the parser crash."""
    try:
        rows = native.parse_maps(text)
    except OSError as error:
        code = error.errno
    else:
        code = errno.EBADMSG
        assert all(low < high for low, high in zip(rows.start, rows.end, strict=True))
    assert code == errno.EBADMSG


def test_everything_without_words() -> None:
    """No RANGE selects all."""
    assert list(Selection().select(MAPPINGS)) == MAPPINGS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["[heap]"], [(0x1000, 0x5000)]),
        (["[anon]"], [(0x5000, 0x9000)]),
        (["*libc*"], [(0x900000, 0x904000)]),
        (["0x2000-0x3000"], [(0x2000, 0x3000)]),
        (["8192+4K"], [(0x2000, 0x3000)]),
        (["0x2001-0x2fff"], [(0x2000, 0x3000)]),
        (["0x4000-0x6000"], [(0x4000, 0x5000), (0x5000, 0x6000)]),
        (["0x400001+1"], [(0x400000, 0x600000)]),
        (["0x2000-0x3000", "0x2000-0x4000"], [(0x2000, 0x4000)]),
        (["[heap]", "0x2000-0x3000"], [(0x1000, 0x5000)]),
    ],
)
def test_selection(words: list[str], expected: list[tuple[int, int]]) -> None:
    """Names, ranges and lengths select; ranges are cut at whole (also huge) pages."""
    chosen = Selection.parse(words).select(MAPPINGS)
    assert [(part.start, part.end) for part in chosen] == expected


def test_words_are_kept() -> None:
    """A session stores the RANGE words and reads them again."""
    selection = Selection.parse(["0x1000+64K", "[heap]", "*x?"])
    assert Selection.parse(selection.words) == selection


@given(st.integers(0, 2**60), st.integers(1, 2**40))
def test_ranges_round_trip(start: int, length: int) -> None:
    """A printed range can be parsed again."""
    span = Range(start, start + length)
    assert Selection.parse([str(span)]).ranges == (span,)
    assert Selection.parse([f"{start}+{length}"]).ranges == (span,)


@given(st.from_regex(r"[0-9][0-9a-fxX+\-KMG.]{0,12}", fullmatch=True))
def test_range_syntax_never_crashes(word: str) -> None:
    """A word that begins with a digit is a range or a usage error."""
    try:
        (span,) = Selection.parse([word]).ranges
    except UsageError:
        return
    assert 0 <= span.start < span.end <= 2**64


def test_name_without_mapping() -> None:
    """A name that matches no mapping is an error."""
    with pytest.raises(PagescanError, match="no mapping is named"):
        Selection.parse(["nothing"]).check(MAPPINGS)


def test_all_names_that_are_absent_are_listed() -> None:
    """One absent name refuses the whole selection, and the hint says so."""
    there = [Mapping(0x1000, 0x2000, "rw-p", 0, (0, 0), 0, "[stack]")]
    with pytest.raises(PagescanError) as told:
        Selection.parse(["[heap]", "[stack]", "*jemalloc*"]).check(there)
    assert str(told.value) == "no mapping is named '[heap]' or '*jemalloc*'"
    assert str(told.value.hint).startswith(
        "nothing was done, since each name has to exist"
    )
    with pytest.raises(PagescanError) as told:
        Selection.parse(["[heap]"]).check(there)
    assert str(told.value.hint).startswith("pagescan maps lists the names")
