"""The page of a recording: what its file holds, and how it stays small."""

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pagescan.render.html as room
from pagescan import native
from pagescan.render.html.frames import Level, frames_of, payload
from pagescan.render.html.page import page
from tests.made_pages import (
    ANON,
    PAGE,
    contents_of,
    mapping,
    random_contents,
    random_looks,
)

ROOM = Path(str(room.__file__)).parent


def data_of(text: str) -> tuple[dict[str, Any], bytes]:
    """Return the facts and the packed regions of a page."""
    found = re.search(r'id="data">([^<]*)<', text)
    assert found
    data = zlib.decompress(base64.b64decode(found[1]))
    length = int.from_bytes(data[:4], "little")
    return json.loads(data[4 : 4 + length]), data[4 + length :]


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
        starts = [start // PAGE // 16 for start in columns.starts]
        assert dict(zip(starts, columns.categories, strict=True)) == counts


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
