"""Selected ranges joined across narrow holes, and regions that leave a mapping."""

import itertools

from hypothesis import given, strategies as st

from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Kind, Mapping
from pagescan.scanner.spans import spans_of

MIB = 1 << 20
PAGE = 4096
RULES = {(Kind.ANON, 0): 0, (Kind.SHARED, 0): 1}

borders = st.sets(st.integers(1, 60), min_size=2, max_size=20).map(sorted)


def mapping(start: int, end: int, perms: str = "rw-p", inode: int = 0) -> Mapping:
    return Mapping(start * MIB, end * MIB, perms, 0, (0, 0), inode, "")


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Mapping], list[Mapping]]:
    """Return all mappings, and a selection of them or of parts of them."""
    there, chosen = [], []
    cuts = draw(borders)
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        perms, inode = draw(st.sampled_from([("rw-p", 0), ("rw-s", 0), ("rw-p", 7)]))
        one = mapping(start, end, perms, inode)
        there.append(one)
        how = draw(st.sampled_from(["whole", "whole", "out", "end", "ends"]))
        if how == "whole":
            chosen.append(one)
        elif how != "out":
            if how == "ends":
                chosen.append(one._replace(end=one.start + PAGE))
            chosen.append(one._replace(start=one.end - PAGE))
    return there, chosen


@given(layouts())
def test_a_span_has_chosen_memory_and_holes(
    layout: tuple[list[Mapping], list[Mapping]],
) -> None:
    """Each selected page is scanned once, by its own rule; no other one is."""
    there, chosen = layout
    spans = list(
        zip(*spans_of(MappingSet(chosen, there), RULES, over_holes=True), strict=True)
    )
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))

    def covered(start: int, end: int, rule: int | None) -> int:
        return sum(
            max(0, min(end, stop) - max(start, at))
            for at, stop, which in spans
            if rule is None or which == rule
        )

    asked = [item for item in chosen if (item.kind, 0) in RULES]
    for item in asked:
        rule = RULES[item.kind, 0]
        assert covered(item.start, item.end, rule) == item.length
    mapped = sum(covered(item.start, item.end, None) for item in there)
    assert mapped == sum(item.length for item in asked)


def test_narrow_holes_make_one_span() -> None:
    """A hole under 2 MiB is scanned too, unless something is mapped in it."""
    one, wide, two = mapping(1, 2), mapping(2, 3, "rw-s"), mapping(3, 4)
    far = mapping(6, 7)
    both = spans_of(
        MappingSet([one, two, far], [one, two, far]), RULES, over_holes=True
    )
    assert list(both.starts) == [1 * MIB, 6 * MIB]
    assert list(both.ends) == [4 * MIB, 7 * MIB]
    between = spans_of(MappingSet([one, two], [one, wide, two]), RULES, over_holes=True)
    assert list(between.starts) == [1 * MIB, 3 * MIB]
    unknown = spans_of(MappingSet([one, two]), RULES, over_holes=True)
    assert list(unknown.starts) == [1 * MIB, 3 * MIB]
