"""The two stages of a look: candidates by the kernel's fast path, then categories."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pagescan.chosen import KindKey, kinds_of, spans_of
from pagescan.kernel import named_empty_entries, swap_in_use
from pagescan.model import Category, Kind, Mapping
from pagescan.native import Masks, Rule, Spans
from pagescan.scanner import PRIVATE, Query, empty_only, of_populated, rule_for


def rules_of(
    chosen: Sequence[Mapping], *, rearm: bool, returned: Category
) -> tuple[Spans, Sequence[Rule], Sequence[Rule], dict[int, Rule]]:
    """Return the two stages of a look: what is scanned, for candidates, and exactly.

    Each candidate is tagged with the index of the exact rule of its mapping. Last come,
    by tag, the rules for the empty entries that an exact scan, which protects, does not
    or must not protect.
    """
    kinds = tuple(kinds_of(chosen))
    files = any(kind is Kind.PRIVATE_FILE for kind, _ in kinds)
    in_use = bool(files and returned & Category.SWAPPED and swap_in_use())
    stages = _stages(kinds, rearm, returned, in_use)
    spans = spans_of(chosen, stages.indices, over_holes=True)
    return spans, stages.candidates, stages.exact, stages.gone


class _Stages(NamedTuple):
    indices: dict[KindKey, int]
    candidates: tuple[Rule, ...]
    exact: tuple[Rule, ...]
    gone: dict[int, Rule]


@lru_cache(maxsize=64)  # the same for each look
def _stages(
    kinds: tuple[KindKey, ...], rearm: bool, returned: Category, in_use: bool
) -> _Stages:
    query = Query(require=Category.WRITTEN, returned=returned)
    indices: dict[KindKey, int] = {}
    candidates: list[Rule] = []
    exact: list[Rule] = []
    gone: dict[int, Rule] = {}
    for kind, size in kinds:
        rule = rule_for(kind, query, size, in_use=in_use)
        if rule is None:
            continue
        tag = indices[kind, size] = len(exact)
        candidates.append(_candidates(kind, rule)._replace(tag=tag, candidates=True))
        if rearm and kind is Kind.HUGETLB:
            gone[tag] = empty_only(rule)
            rule = of_populated(rule)
        elif rearm and kind is Kind.SHARED and not named_empty_entries().beside_others:
            gone[tag] = empty_only(rule)
        exact.append(rule._replace(protect=rearm))
    return _Stages(indices, tuple(candidates), tuple(exact), gone)


def _candidates(kind: Kind, rule: Rule) -> Rule:
    """Return what finds all pages that an exact rule may find, and few others."""
    # The fast path names empty entries on every kernel, but not everywhere.
    slow = kind is Kind.HUGETLB or (
        kind is Kind.SHARED and not named_empty_entries().without_table
    )
    if slow:
        return rule._replace(wanted=Masks(mask=Category.WRITTEN))
    return Rule(
        asked=Masks(mask=Category.WRITTEN, returned=Category.WRITTEN),
        # Pages of the file itself are candidates for ever.
        whole=kind is Kind.PRIVATE_FILE,
        align=rule.align,
        populated=kind in PRIVATE,
    )
