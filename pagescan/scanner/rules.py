"""The two stages of a look: candidates by the kernel's fast path, then categories."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pagescan import native
from pagescan.model.mapping_set import KindKey, MappingSet
from pagescan.model.memory import HUGE_PAGE, NO_CATEGORY, Category, Kind
from pagescan.native import Masks, Rule, Spans
from pagescan.scanner.query import Query
from pagescan.scanner.spans import spans_of
from pagescan.target.kernel import (
    known_categories,
    named_empty_entries,
    or_empty,
    swap_in_use,
)


def rules_of(
    selected: MappingSet, *, rearm: bool, returned: Category
) -> tuple[Spans, Sequence[Rule], Sequence[Rule], dict[int, Rule]]:
    """Return the two stages of a look: what is scanned, for candidates, and exactly.

    The label of each candidate is the index of the exact rule of its mapping. Last
    come, by label, the rules for the empty entries that an exact scan, which protects,
    does not or must not protect.
    """
    files = any(kind is Kind.PRIVATE_FILE for kind, _ in selected.kinds)
    in_use = bool(files and returned & Category.SWAPPED and swap_in_use())
    stages = _stages(selected.kinds, rearm, returned, in_use)
    spans = spans_of(selected, stages.indices, over_holes=True)
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
        label = indices[kind, size] = len(exact)
        candidates.append(
            _candidates(kind, rule)._replace(label=label, candidates=True)
        )
        if rearm and kind is Kind.HUGETLB:
            gone[label] = empty_only(rule)
            rule = of_populated(rule)
        elif rearm and kind is Kind.SHARED and not named_empty_entries().beside_others:
            gone[label] = empty_only(rule)
        exact.append(rule._replace(protect=rearm))
    return _Stages(indices, tuple(candidates), tuple(exact), gone)


def _candidates(kind: Kind, rule: Rule) -> Rule:
    """Return what finds all pages that an exact rule may find, and few others."""
    # The fast path names empty entries on every kernel, but not everywhere.
    slow = kind is Kind.HUGETLB or (
        kind is Kind.SHARED and not named_empty_entries().without_table
    )
    if slow:
        return rule._replace(result_masks=Masks(mask=Category.WRITTEN))
    return Rule(
        kernel_masks=Masks(mask=Category.WRITTEN, returned=Category.WRITTEN),
        # Pages of the file itself are candidates for ever.
        whole_range=kind is Kind.PRIVATE_FILE,
        align=rule.align,
        skip_holes=kind in PRIVATE,
    )


POPULATED = Category.PRESENT | Category.SWAPPED

_UNWRITTEN = {
    Kind.ANON: Category.PFNZERO | Category.GUARD,
    Kind.PRIVATE_FILE: Category.PFNZERO | Category.GUARD | Category.FILE,
    Kind.SHARED: Category.GUARD,
    Kind.HUGETLB: NO_CATEGORY,
    Kind.SPECIAL: NO_CATEGORY,
}

_CLEAR = {
    Kind.ANON: Category.FILE,  # never set, and costs a look-up a page to be asked for
    Kind.PRIVATE_FILE: NO_CATEGORY,
    Kind.SHARED: Category.SWAPPED,
    Kind.HUGETLB: Category.SWAPPED,
    Kind.SPECIAL: Category.WPALLOWED | Category.WRITTEN,
}

PRIVATE = frozenset({Kind.ANON, Kind.PRIVATE_FILE})

# What an empty entry may have of the kernel's bits.
_OF_EMPTY = Category.WPALLOWED | Category.WRITTEN | Category.HUGE


def rule_for(
    kind: Kind, query: Query, page_size: int = 0, *, in_use: bool | None = None
) -> Rule | None:
    """Return what to ask in mappings of a kind; None if nothing there can match.

    Args:
        kind: Of the mappings.
        query: What is wanted.
        page_size: Of their huge pages, in bytes; 0: they have none.
        in_use: Whether there is swap; None: the kernel is asked if that matters.
    """
    swap = bool(kind is Kind.PRIVATE_FILE and query.used & Category.SWAPPED)
    if swap and in_use is None:
        in_use = swap_in_use()
    return _rule_for(kind, query, page_size, swap, bool(swap and in_use))


@lru_cache(maxsize=256)  # the same for each look
def _rule_for(
    kind: Kind, query: Query, page_size: int, swap: bool, in_use: bool
) -> Rule | None:
    align = page_size or HUGE_PAGE
    if query.raw:
        return Rule(kernel_masks=query.masks, result_masks=query.masks, align=align)
    clear = _CLEAR[kind]
    if query.require & clear or (query.any_of and not query.any_of & ~clear):
        return None
    known = known_categories()
    unwritten = _UNWRITTEN[kind] & known if query.used & Category.WRITTEN else 0
    guard = Category.GUARD & known if query.used & Category.SWAPPED else 0
    # Reading a page may clear WRITTEN, SWAPPED, `ignored_bits`, and never sets a bit:
    # so required bits may be required of the kernel too, and of the excluded ones those
    # that are never cleared.
    exclude = query.exclude & ~(clear | Category.WRITTEN | Category.SWAPPED)
    require = query.require
    any_of = query.any_of
    if require & Category.WRITTEN:
        require |= Category.WPALLOWED
        exclude |= unwritten
        if not any_of and kind in PRIVATE:
            any_of = POPULATED
    if require & Category.SWAPPED:
        exclude |= guard
    needed = query.used | unwritten | guard
    empty_without = NO_CATEGORY
    if query.used & Category.WRITTEN:
        needed |= Category.WPALLOWED | POPULATED
        empty_without = NO_CATEGORY if kind in PRIVATE else POPULATED
    # A dropped page leaves a marker here. Without swap there is nothing else; with it,
    # pagemap tells the two apart.
    if swap and not in_use:
        guard |= Category.WPALLOWED
        needed |= Category.WPALLOWED
    cleared = clear & Category.FILE
    asked = Masks(
        mask=require | exclude,
        inverted=exclude,
        anyof=any_of & ~cleared,
        returned=needed & ~cleared,
    )
    return Rule(
        kernel_masks=asked if kind in PRIVATE else _or_empty(asked),
        result_masks=query.masks,
        align=align,
        written_all=Category.WPALLOWED,
        written_any=POPULATED if kind in PRIVATE else 0,
        written_none=unwritten,
        empty_without=empty_without,
        marker_bits=guard,
        ignored_bits=clear,
        check_markers=swap,
    )


def _or_empty(asked: Masks) -> Masks:
    """Widen masks to empty entries, where those that are written are asked for."""
    required = asked.mask & ~asked.inverted
    if required & ~_OF_EMPTY or (asked.anyof and not asked.anyof & _OF_EMPTY):
        return asked  # no empty entry can be wanted
    if required & Category.WRITTEN:
        return or_empty(asked)
    return asked._replace(anyof=0) if asked.anyof & Category.WRITTEN else asked


def empty_only(rule: Rule) -> Rule:
    """Return the part of a rule for written pages that `of_populated` leaves out."""
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


def of_populated(rule: Rule) -> Rule:
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


def read_bits(rule: Rule, bits: int) -> int:
    """Read the kernel's bits by a rule, as the shim does for each region."""
    if rule.empty_without and not bits & rule.empty_without:
        bits |= Category.WRITTEN
    written = (
        bits & rule.written_all == rule.written_all
        and (not rule.written_any or bits & rule.written_any)
        and not bits & rule.written_none
    )
    if not written:
        bits &= ~Category.WRITTEN
    if bits & rule.marker_bits:
        bits &= ~Category.SWAPPED
    return bits & ~rule.ignored_bits


def is_wanted(rule: Rule, bits: int) -> bool:
    """Whether pages whose bits were read so are what the rule wants."""
    masks = rule.result_masks
    bits ^= masks.inverted
    return bits & masks.mask == masks.mask and not (
        masks.anyof and not bits & masks.anyof
    )


def protectable(bits: int) -> bool:
    """Whether a page may be write-protected by the scan: populated and registered."""
    return bool(
        bits & Category.WPALLOWED and bits & POPULATED and not bits & Category.GUARD
    )


def is_gone(rule: Rule, bits: int) -> bool:
    """Whether a page was written, in shared memory, and is in no page table now."""
    empty = bool(rule.empty_without) and not bits & rule.empty_without
    return empty and bool(read_bits(rule, bits) & Category.WRITTEN)


@lru_cache(maxsize=64)  # the same for each look
def outside(kind: Kind, page_size: int) -> Rule:
    """Return how populated pages that are not registered are found."""
    shown = Category.FILE | Category.PRESENT | Category.SWAPPED
    exclude = Category.WPALLOWED | Category.GUARD & known_categories()
    if kind in PRIVATE:
        exclude |= Category.FILE | Category.PFNZERO
        require, any_of = Category(0), POPULATED
    else:
        require, any_of = Category.PRESENT, Category(0)
    return Rule(
        kernel_masks=Masks(
            mask=exclude | require, inverted=exclude, anyof=any_of, returned=shown
        ),
        result_masks=Masks(returned=shown),
        align=page_size or HUGE_PAGE,
        ignored_bits=0 if kind in PRIVATE else Category.SWAPPED,
        label=Category.WRITTEN,
    )


def protecting(mappings: MappingSet) -> tuple[native.Spans, list[Rule]]:
    """Return the scan that protects the populated pages of private mappings.

    Pages of the file itself are left alone: a store makes a private copy, which has no
    protection. So are the zero page and guards.
    """
    exclude = Category.PFNZERO | Category.GUARD & known_categories()
    rules = []
    for kind in (Kind.ANON, Kind.PRIVATE_FILE):
        left_out = exclude | (Category.FILE if kind is Kind.PRIVATE_FILE else 0)
        rules.append(
            Rule(
                kernel_masks=Masks(
                    mask=Category.WPALLOWED | Category.WRITTEN | left_out,
                    inverted=left_out,
                    anyof=POPULATED,
                    returned=Category.WRITTEN,
                ),
                protect=True,
                align=HUGE_PAGE,
            )
        )
    indices = {(Kind.ANON, 0): 0, (Kind.PRIVATE_FILE, 0): 1}
    return spans_of(mappings, indices), rules


def one_rule(mappings: MappingSet) -> dict[KindKey, int]:
    """Return rule 0 for each kind of the mappings."""
    return dict.fromkeys(mappings.kinds, 0)
