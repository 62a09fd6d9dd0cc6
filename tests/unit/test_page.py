"""The page of a recording: what its file holds, and how it stays small."""

import base64
import json
import random
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any

import pytest

import pagescan.render.html as room
from pagescan import native
from pagescan.native import Columns
from pagescan.render.html.frames import Level, frames_of, payload
from pagescan.render.html.page import page
from tests.made_pages import (
    ANON,
    PAGE,
    columns_of,
    contents_of,
    mapping,
    random_contents,
    random_looks,
)

ROOM = Path(str(room.__file__)).parent


def page_data(text: str) -> bytes:
    """Return the data of a page."""
    found = re.search(r'id="data">([^<]*)<', text)
    assert found
    return zlib.decompress(base64.b64decode(found[1]))


def data_of(text: str) -> tuple[dict[str, Any], bytes]:
    """Return the facts and the packed regions of a page."""
    data = page_data(text)
    length = int.from_bytes(data[:4], "little")
    facts = json.loads(data[4 : 4 + length])
    return facts, data[4 + length + counts_length(facts) :]


def counts_length(facts: dict[str, Any]) -> int:
    """Return the bytes of the columns of written pages by look and mapping."""
    written, looks = facts["looks"]["written"], len(facts["looks"]["to"])
    sizes = (looks, written["entries"], written["entries"])
    return sum(map(mul, sizes, written["planes"]))


def pages_of(columns: native.Columns) -> set[int]:
    """Return the numbers of the pages of regions."""
    return {
        page
        for start, end in zip(columns.starts, columns.ends, strict=True)
        for page in range(start // PAGE, end // PAGE)
    }


def test_every_script_is_on_the_page_and_no_module_word_is_left() -> None:
    text = page(random_contents(4))
    for script in ROOM.glob("*.mjs"):
        first = script.read_text().splitlines()[0]
        assert first.startswith("//"), f"{script.name} does not say its job"
        assert text.count(first) == 1, f"{script.name} is missing"
    assert not re.search(r"^(import|export) ", text, re.MULTILINE)
    assert "Copyright (c) 2022 Leon Sorokin" in text
    assert "THE SOFTWARE IS PROVIDED" in text


def test_the_page_names_nothing_to_load() -> None:
    text = page(random_contents(4))
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket", text)


def test_names_of_processes_and_mappings_cannot_become_markup() -> None:
    evil = "</script><script>alert(1)</script>\udcff{{data}}"
    written = [{ANON}, {ANON + 1}]
    contents = contents_of(written, [mapping(ANON, 4, evil)], name=evil, notes=[evil])
    text = page(contents)
    assert "alert(1)</script>" not in text
    text.encode()
    facts, _ = data_of(text)
    assert facts["mappings"][0]["name"] == evil
    assert facts["notes"] == [evil]


def test_the_counts_of_all_looks_are_columns_of_bytes() -> None:
    contents = random_contents(30, scale=6)
    data = page_data(page(contents))
    facts, _ = data_of(page(contents))
    at = 4 + int.from_bytes(data[:4], "little")
    written = facts["looks"]["written"]
    columns = []
    for size, planes in zip(
        (30, written["entries"], written["entries"]), written["planes"], strict=True
    ):
        parts = [data[at + plane * size :][:size] for plane in range(planes)]
        at += size * planes
        columns.append(
            [int.from_bytes(each, "little") for each in zip(*parts, strict=True)]
        )
    sizes, mappings, pages = columns
    looks = contents.looks
    assert sizes == [len(look.mappings) for look in looks]
    assert mappings == [one for look in looks for one in look.mappings]
    assert pages == [one for look in looks for one in look.counts]
    assert max(pages) > 255, "one byte per number would do"
    assert written["planes"] == [1, 1, 2]


def test_a_page_that_would_be_too_large_is_coarser() -> None:
    contents = random_contents(400, scale=6)
    exact = page(contents)
    for cap in (len(exact) // 2, len(exact) // 4):
        text = page(contents, cap)
        facts, _ = data_of(text)
        assert len(text) <= cap
        assert facts["level"] != {"looks": 1, "unit": 1}
        assert len(facts["looks"]["to"]) == 400  # lines and figures stay exact
    assert data_of(exact)[0]["level"] == {"looks": 1, "unit": 1}


def test_several_looks_as_one_have_the_pages_that_any_of_them_found() -> None:
    written = random_looks(20)
    contents = contents_of(written, [])
    frames = list(frames_of(contents, Level(looks=3)))
    assert [(one.first, one.last) for one in frames] == [
        (at, min(at + 2, 19)) for at in range(0, 20, 3)
    ]
    for one in frames:
        columns = native.unpack(one.packed, one.regions, PAGE)
        assert pages_of(columns) == set().union(*written[one.first : one.last + 1])


def test_units_count_their_written_pages() -> None:
    written = random_looks(5)
    contents = contents_of(written, [])
    for one in frames_of(contents, Level(unit=16)):
        columns = native.unpack(one.packed, one.regions, PAGE)
        counts: dict[int, int] = {}
        for number in written[one.first]:
            counts[number // 16] = counts.get(number // 16, 0) + 1
        found = {
            unit: pages
            for start, end, pages in zip(*columns, strict=True)
            for unit in range(start // PAGE // 16, end // PAGE // 16)
        }
        assert found == counts


@pytest.mark.parametrize("unit", [1, 4, 16])
def test_looks_joined_in_units_are_what_sets_say(unit: int) -> None:
    rolled = random.Random(unit)
    dense = [
        {
            base + page
            for base in (0, 1 << 40)
            for page in range(rolled.randrange(60), rolled.randrange(60, 300))
            if rolled.random() < 0.9
        }
        for _ in range(13)
    ]
    looks = [native.pack(columns_of(pages), PAGE) for pages in [*dense, set()]]
    regions, packed = native.join_packed(looks, unit)
    counts = Counter(page // unit for page in set().union(*dense))
    columns = native.unpack(packed, regions, PAGE)
    assert len(columns.starts) == regions
    found = {
        at: pages or unit
        for start, end, pages in zip(*columns, strict=True)
        for at in range(start // PAGE // unit, end // PAGE // unit)
    }
    assert found == counts
    rows = pairwise(zip(*columns, strict=True))
    assert not [1 for one, other in rows if (one[1], one[2]) == (other[0], other[2])]


def test_a_region_of_any_size_is_joined_at_once() -> None:
    """A made recording may have one of a million TiB: the work is per region."""
    columns = Columns(array("Q", [PAGE]), array("Q", [1 << 60]), array("Q", [0]))
    packed = native.pack(columns, PAGE)
    regions, joined = native.join_packed([packed, packed], 4)
    found = native.unpack(joined, regions, PAGE)
    assert [*found.starts] == [0, 4 * PAGE]
    assert found.ends[-1] == 1 << 60
    assert [*found.categories] == [3, 4]


def test_a_damaged_look_leaves_the_others_of_its_frame() -> None:
    written = random_looks(4)
    contents = contents_of(written, [])
    columns, packed = contents.columns, contents.packed

    def damaged(at: int) -> Columns:
        return Columns.empty() if at == 1 else columns(at)

    def cut(group: Sequence[int]) -> list[tuple[int, bytes]]:
        return [
            (5, b"\xff\xff") if at == 1 else one
            for at, one in zip(group, packed(group), strict=True)
        ]

    contents = replace(contents, columns=damaged, packed=cut)
    with pytest.raises(ValueError, match="damaged"):
        native.join_packed([cut([1])[0][1]], 1)
    (frame,) = frames_of(contents, Level(looks=4))
    columns_ = native.unpack(frame.packed, frame.regions, PAGE)
    assert pages_of(columns_) == written[0] | written[2] | written[3]


def test_a_page_with_too_many_regions_is_coarser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pagescan.render.html.frames._MOST_REGIONS", 20_000)
    contents = random_contents(400)
    facts, _ = data_of(page(contents))
    assert sum(regions for regions, _ in contents.packed(range(400))) > 20_000
    assert facts["level"] != {"looks": 1, "unit": 1}
    assert sum(facts["frames"]["regions"]) < 25_000


def test_a_recording_without_a_look_has_a_page() -> None:
    facts, packed = data_of(page(contents_of([], [])))
    assert facts["looks"]["to"] == []
    assert packed == b""


def test_looks_of_two_processes_are_never_one_frame() -> None:
    contents = random_contents(12)
    looks = [look._replace(process=at % 2) for at, look in enumerate(contents.looks)]
    for frame in frames_of(replace(contents, looks=looks), Level(looks=2)):
        assert frame.last - frame.first == 2
        assert frame.process == frame.first % 2


def test_the_data_is_within_its_limit_whatever_it_is() -> None:
    contents = random_contents(60, scale=4)
    for limit in (30_000, 10_000, 6_000):
        data, level = payload(contents, limit)
        assert len(data) <= limit, level
