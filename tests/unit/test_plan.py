"""Plans against a model page by page; the binary form, written and read back."""

import io
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from pagescan import native
from pagescan.checkpoint.binary import read_plan, write_binary
from pagescan.checkpoint.plan import Plan, lay_out
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import NO_CATEGORY, Kind, Mapping
from pagescan.model.ranges import union
from pagescan.model.results import Action, TargetFacts
from pagescan.native import Columns
from pagescan.session import pending

PAGE = 4096
HEADER = 72
Pages = dict[int, int]
HEAP = Mapping(0, 1 << 40, "rw-p", 0, (0, 0), 0, "[heap]")


def lists(*bits: int) -> st.SearchStrategy[Pages]:
    """Return pages, each with a category."""
    return st.dictionaries(st.integers(1, 60), st.sampled_from(bits), max_size=40)


def columns(pages: Pages) -> Columns:
    """Return one region per page: functions must still return maximal regions."""
    made = Columns.empty()
    for page, bits in sorted(pages.items()):
        for column, value in zip(
            made, (page * PAGE, (page + 1) * PAGE, bits), strict=True
        ):
            column.append(value)
    return made


def pages_of(made: Columns) -> Pages:
    """Return the pages; assert that the regions are ascending, disjoint, maximal."""
    found: Pages = {}
    last = (0, 0)
    for start, end, bits in zip(*made, strict=True):
        assert start < end
        assert start > last[0] or (start == last[0] and bits != last[1])
        last = end, bits
        found |= dict.fromkeys(range(start // PAGE, end // PAGE), bits)
    return found


@given(lists(1, 2, 32), lists(1, 4, 8), st.booleans())
def test_overlay(under: Pages, over: Pages, outside: bool) -> None:
    """Where both lists have a page, the upper list decides."""
    seen = over if outside else {page: over[page] for page in over if page in under}
    made = native.overlay(columns(under), columns(over), outside=outside)
    assert pages_of(made) == {**under, **seen}


@given(lists(1), lists(2))
def test_union(one: Pages, other: Pages) -> None:
    """The pages of either list, without their categories."""
    made = union(columns(one), columns(other))
    assert pages_of(made) == dict.fromkeys({*one, *other}, 0)


@given(lists(Action.KEEP, Action.ZERO), lists(2), lists(0))
def test_lay_out(populated: Pages, changed: Pages, maybe: Pages) -> None:
    """Written pages are dumped; unsaved ones only if they are still populated."""
    expected = populated | {
        page: Action.DUMP
        for page in {*populated, *changed}
        if page in changed or page in maybe
    }
    made = lay_out(columns(populated), columns(changed), columns(maybe))
    assert pages_of(made) == expected


def plan_of(rows: int, epoch: int | None = 7, parent: int | None = None) -> Plan:
    """Return a plan with the given number of regions."""
    assert HEAP.kind is Kind.ANON
    actions = [Action.DUMP, Action.ZERO, Action.KEEP]
    found = Columns(
        array("Q", range(PAGE, (2 * rows + 1) * PAGE, 2 * PAGE)),
        array("Q", range(2 * PAGE, (2 * rows + 2) * PAGE, 2 * PAGE)),
        array("Q", (actions[row % 3] for row in range(rows))),
    )
    batch = Batch.join(found, MappingSet([HEAP]), page_size=PAGE, returned=NO_CATEGORY)
    return Plan(TargetFacts(4242, "x", None, 99, PAGE), batch, epoch, parent)


@pytest.mark.parametrize("rows", [0, 1, 1000])
@pytest.mark.parametrize(("epoch", "parent"), [(None, None), (7, None), (8, 7)])
def test_there_and_back(rows: int, epoch: int | None, parent: int | None) -> None:
    plan = plan_of(rows, epoch, parent)
    data = io.BytesIO()
    write_binary(plan, data)
    assert len(data.getvalue()) == HEADER + 16 * rows
    data.seek(0)
    read = read_plan(data)
    assert read[:5] == (4242, 99, PAGE, epoch, parent)
    assert list(read.regions) == list(plan.regions())


def test_damage_is_noticed() -> None:
    """A plan that is cut, or has another magic, version or action, is refused."""
    stream = io.BytesIO()
    write_binary(plan_of(3), stream)
    data = stream.getvalue()
    bad = [data[:length] for length in range(len(data))]
    bad += [b"X" + data[1:], data[:8] + b"\2" + data[9:]]
    bad.append(data[: HEADER + 8] + b"\3" + data[HEADER + 9 :])
    for each in bad:
        with pytest.raises(PagescanError):
            read_plan(io.BytesIO(each))


def test_pages_by_action() -> None:
    assert plan_of(7).pages() == {"dump": 3, "zero": 2, "keep": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    fd = os.open(tmp_path_factory.mktemp("sessions"), os.O_RDONLY)
    yield fd
    os.close(fd)


@given(lists(0), st.integers(0, 99))
def test_what_is_kept_comes_back(folder: int, pages: Pages, epoch: int) -> None:
    """A stored list of pages is loaded for its own epoch, and for no other."""
    pending.store(folder, 7, epoch, columns(pages))
    assert pending.load(folder, 7, epoch) == columns(dict.fromkeys(pages, 0))
    assert pending.load(folder, 7, epoch + 1) is None


@given(lists(0), st.data())
def test_damage_of_what_is_kept(folder: int, pages: Pages, data: st.DataObject) -> None:
    """A stored list that is cut, or has a bit flipped, is silently not used."""
    pending.store(folder, 7, 1, columns(pages))
    path = f"/proc/self/fd/{folder}/7.pages"
    good = Path(path).read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = bytearray(good)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for bad in (good[:at], bytes(flipped), data.draw(st.binary(max_size=64))):
        Path(path).write_bytes(bad)
        assert pending.load(folder, 7, 1) is None
