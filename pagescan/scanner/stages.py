"""The two stages of a look: candidates by the kernel's fast path, then categories."""

from functools import lru_cache
from typing import NamedTuple

from pagescan.model.mapping_set import KindKey, MappingSet
from pagescan.model.memory import Category
from pagescan.native import Rule, Spans
from pagescan.scanner.query import Query
from pagescan.scanner.rules import (
    POPULATED,
    TABLE,
    Empty,
    candidate_rule,
    query_rule,
)
from pagescan.scanner.spans import spans_of
from pagescan.target.kernel import named_empty_entries, swap_in_use


class Stages(NamedTuple):
    """The two stages of a look.

    Attributes:
        indices: The index of the rules of each kind.
        candidates: The rules of the first scan; the label of each is its index.
        exact: The rules of the second scan, which is over the candidates.
        gone: By index: rules for the empty entries that an exact scan, which protects,
            does not or must not protect.
    """

    indices: dict[KindKey, int]
    candidates: tuple[Rule, ...]
    exact: tuple[Rule, ...]
    gone: dict[int, Rule]


def look_stages(
    selected: MappingSet, *, rearm: bool, returned: Category
) -> tuple[Spans, Stages]:
    """Return the ranges that a look scans, and its two stages."""
    markers = any(TABLE[kind].drop_leaves_marker for kind, _ in selected.kinds)
    in_use = bool(markers and returned & Category.SWAPPED and swap_in_use())
    stages = _stages(selected.kinds, rearm, returned, in_use)
    return spans_of(selected, stages.indices, over_holes=True), stages


@lru_cache(maxsize=64)  # the same for each look
def _stages(
    kinds: tuple[KindKey, ...], rearm: bool, returned: Category, in_use: bool
) -> Stages:
    query = Query(require=Category.WRITTEN, returned=returned)
    candidates: list[Rule] = []
    exact: list[Rule] = []
    indices: dict[KindKey, int] = {}
    gone: dict[int, Rule] = {}
    for kind, size in kinds:
        rule = query_rule(kind, query, size, in_use=in_use)
        if rule is None:
            continue
        index = indices[kind, size] = len(exact)
        candidates.append(candidate_rule(kind, rule)._replace(label=index))
        empty = TABLE[kind].empty
        apart = empty is Empty.WRITTEN_APART
        unnamed = empty is Empty.WRITTEN and not named_empty_entries().beside_others
        if rearm and (apart or unnamed):
            gone[index] = _empty_only(rule)
        if rearm and apart:
            rule = _of_populated(rule)
        exact.append(rule._replace(protect=rearm))
    return Stages(indices, tuple(candidates), tuple(exact), gone)


def _empty_only(rule: Rule) -> Rule:
    """Return the part of a rule for written pages that `_of_populated` leaves out."""
    asked, wanted = rule.kernel_masks, rule.result_masks
    return rule._replace(
        kernel_masks=asked._replace(
            mask=asked.mask | POPULATED, inverted=asked.inverted | POPULATED, anyof=0
        ),
        result_masks=wanted._replace(
            mask=wanted.mask | Category.PRESENT,
            inverted=wanted.inverted | Category.PRESENT,
        ),
    )


def _of_populated(rule: Rule) -> Rule:
    """Return a rule for written pages less the empty entries: those stay as they are.

    The scan must not protect those of hugetlb: it makes no marker of them, and before
    6.12.97 and from 6.13 to 6.17 the kernel would wait for itself.
    """
    asked = rule.kernel_masks
    return rule._replace(
        kernel_masks=asked._replace(
            mask=asked.mask | Category.WRITTEN,
            inverted=asked.inverted & ~Category.PRESENT,
            anyof=0,
        )
    )
