"""The contents of a page are those of the recording."""

import random
from pathlib import Path

import pytest

import pagescan
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import MappingSet
from pagescan.recording.excerpt import Excerpt, parse_span
from pagescan.recording.page_contents import page_contents
from pagescan.recording.store import Recording, open_recording
from pagescan.render.html.records import PageContents
from pagescan.target.selection import Selection
from tests.synthetic import PAGE, Made, mapping, pages_of, some_pages
from tests.unit.test_page import data_of

HEAP = mapping(0x5555_0000_0000, 400, "[heap]")
GROWN = mapping(HEAP.start, 900, "[heap]")
ANON = mapping(0x7F00_0000_0000, 4096)
LOOKS = 20


def made(path: Path) -> Made:
    """Return a recording of a heap that grows after half of the looks."""
    rolled = random.Random(3)
    recording = Made(path, MappingSet([HEAP, ANON]))
    for at in range(LOOKS):
        heap = HEAP if at < LOOKS // 2 else GROWN
        recording.mappings = MappingSet([heap, ANON])
        pages = [*some_pages(rolled, heap, 30), *some_pages(rolled, ANON, 50)]
        recording.look(pages, resident=at * PAGE)
    recording.close()
    return recording


def contents_of(recording: Recording, *words: str, time: str = "") -> PageContents:
    """Return the contents of a page about a part of a recording."""
    excerpt = Excerpt(recording, Selection.parse(words))
    if time:
        excerpt = Excerpt(recording, excerpt.selection, parse_span(time, recording))
    return page_contents(excerpt)


def check_counts(contents: PageContents) -> None:
    """Compare the counts of each look with its pages."""
    for at, look in enumerate(contents.looks):
        pages = pages_of(contents.columns(at))
        counts = dict(zip(look.mappings, look.counts, strict=True))
        for index, one in enumerate(contents.mappings):
            alive = one.first <= at <= one.last
            inside = sum(one.start <= page < one.end for page in pages)
            assert counts.get(index, 0) == (inside if alive else 0)
        assert look.pages == len(pages) == sum(look.counts)


def test_all_looks_with_all_pages(tmp_path: Path) -> None:
    recorded = made(tmp_path / "a.pagescan")
    with open_recording(str(recorded.path)) as recording:
        contents = contents_of(recording)
        for at, pages in enumerate(recorded.written):
            assert pages_of(contents.columns(at)) == pages
        check_counts(contents)
        assert [one.name for one in contents.mappings].count("[heap]") == 2
        assert [look.resident for look in contents.looks] == [
            at * PAGE for at in range(LOOKS)
        ]
        assert contents.looks[0].share == pytest.approx(0.01)
        assert contents.looks[1].to_ns - contents.looks[1].from_ns == 10**9
        assert contents.notes == []


def test_no_name_turns_the_text_behind_it(tmp_path: Path) -> None:
    evil = "/tmp/\u202egnp.exe\x1b[m"
    recording = Made(tmp_path / "a.pagescan", MappingSet([mapping(0, 4, evil)]))
    recording.look([0], resident=PAGE)
    recording.close()
    with open_recording(str(recording.path)) as opened:
        (one,) = contents_of(opened).mappings
        assert one.name == "/tmp/\\u202egnp.exe\\x1b[m"


def test_a_part_of_the_time(tmp_path: Path) -> None:
    recorded = made(tmp_path / "a.pagescan")
    with open_recording(str(recorded.path)) as recording:
        contents = contents_of(recording, time="3s-7s")
        assert len(contents.looks) == 4
        for at in range(4):
            assert pages_of(contents.columns(at)) == recorded.written[3 + at]
        check_counts(contents)
        assert {(one.first, one.last) for one in contents.mappings} == {(0, 3)}


def test_a_part_of_the_memory(tmp_path: Path) -> None:
    recorded = made(tmp_path / "a.pagescan")
    with open_recording(str(recorded.path)) as recording:
        contents = contents_of(recording, "[heap]")
        check_counts(contents)
        assert {one.name for one in contents.mappings} == {"[heap]"}
        assert [look.pages for look in contents.looks] == [30] * LOOKS


def test_damage_is_a_note(tmp_path: Path) -> None:
    recorded = made(tmp_path / "a.pagescan")
    with open_recording(str(recorded.path)) as recording:
        contents = contents_of(recording)
        recording.damage.append("the look at 03:04:07 is damaged")
        assert contents.notes == ["the look at 03:04:07 is damaged"]


def test_a_program_writes_a_page(tmp_path: Path) -> None:
    recorded = made(tmp_path / "a.pagescan")
    page = tmp_path / "a.html"
    with pagescan.open_recording(str(recorded.path)) as recording:
        assert recording.write_page(str(page), time="3s-7s") == page.stat().st_size
        facts, _ = data_of(page.read_text())
        assert len(facts["looks"]["to"]) == 4
        with pytest.raises(PagescanError, match="no look in that time"):
            recording.write_page(str(page), time="1h-2h")
        with pytest.raises(PagescanError, match="cannot write") as refused:
            recording.write_page(str(tmp_path / "no" / "a.html"))
        assert (refused.value.call, refused.value.errno) == ("write", 2)
