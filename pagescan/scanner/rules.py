"""The one table of which pages count as written, and the rules that are made from it.

WRITTEN is the inverse of the uffd-wp bit, and nothing else: an empty entry, the zero
page and a guard marker have it too, and a hole has it on some kernels only. So each
kind of mapping has a row that says when a page of it was written. Four rules are made
from a row: `query_rule` for what a user asks, `candidate_rule` for the first stage of a
look, `protection_scan` for arming, and `new_memory_rule` for unregistered memory.
"""

import enum
from functools import lru_cache
from typing import NamedTuple

from pagescan.model.mapping_set import KindKey, MappingSet
from pagescan.model.memory import HUGE_PAGE, NO_CATEGORY, Category, Kind
from pagescan.native import Masks, Rule, Spans
from pagescan.scanner.query import Query
from pagescan.scanner.spans import spans_of
from pagescan.target.kernel import (
    known_categories,
    named_empty_entries,
    swap_in_use,
)

POPULATED = Category.PRESENT | Category.SWAPPED


class Protection(enum.Enum):
    """How a kind of mapping is write-protected."""

    SCAN = "by the scan: populated pages only, so that a hole costs nothing"
    RANGE = "by UFFDIO_WRITEPROTECT, which puts a marker into each hole"
    NONE = "not at all"


class Empty(enum.Enum):
    """The meaning of an empty page-table entry of registered memory.

    Where each entry got a marker when it was armed, an empty one is a page that was
    written, and then dropped or paged out. Linux 6.7 to 6.12.102 and 6.13 to 6.17 do
    not report WRITTEN of it unless nothing else is asked for; no kernel does of
    hugetlb.
    """

    NOTHING = "nothing: no rule relies on it"
    WRITTEN = "written: the scan reports and protects it, if this kernel can"
    WRITTEN_APART = "written: the scan neither reports it nor may protect it"


class Written(NamedTuple):
    """One kind of mapping: when a page of it counts as written.

    A page is written if it is WPALLOWED and WRITTEN and has none of `none_of`; where an
    empty entry says nothing, it must be populated too.

    Attributes:
        protected_by: How it is armed.
        empty: What an empty entry says.
        none_of: Bits that no written page has.
        meaningless: Bits that are cleared before they are reported.
        drop_leaves_marker: SWAPPED may be the marker of a dropped page, not swap.
    """

    protected_by: Protection
    empty: Empty
    none_of: Category
    meaningless: Category
    drop_leaves_marker: bool = False

    @property
    def any_of(self) -> Category:
        """Bits of which a written page has at least one; none: it may be empty."""
        return POPULATED if self.empty is Empty.NOTHING else NO_CATEGORY


_NO_STORE = Category.PFNZERO | Category.GUARD

TABLE = {
    Kind.ANON: Written(
        Protection.SCAN,
        Empty.NOTHING,
        _NO_STORE,
        # It is never set, and asking for it costs a look-up per page.
        meaningless=Category.FILE,
    ),
    Kind.PRIVATE_FILE: Written(
        Protection.SCAN,
        Empty.NOTHING,
        _NO_STORE | Category.FILE,  # a store makes a private copy
        meaningless=NO_CATEGORY,
        drop_leaves_marker=True,
    ),
    Kind.SHARED: Written(
        Protection.RANGE,
        Empty.WRITTEN,
        Category.GUARD,
        meaningless=Category.SWAPPED,  # a marker
    ),
    Kind.HUGETLB: Written(
        Protection.RANGE,
        Empty.WRITTEN_APART,
        NO_CATEGORY,
        meaningless=Category.SWAPPED,  # a marker
    ),
    Kind.SPECIAL: Written(
        Protection.NONE,
        Empty.NOTHING,
        NO_CATEGORY,
        meaningless=Category.WPALLOWED | Category.WRITTEN,
    ),
}

PRIVATE = frozenset(
    kind for kind, row in TABLE.items() if row.protected_by is Protection.SCAN
)
"""The kinds whose holes cost nothing: they are protected by the scan."""

# The bits of the kernel that an empty entry may have.
_OF_EMPTY = Category.WPALLOWED | Category.WRITTEN | Category.HUGE


def query_rule(
    kind: Kind, query: Query, page_size: int = 0, *, in_use: bool | None = None
) -> Rule | None:
    """Return what to ask in mappings of a kind; None if nothing there can match.

    Args:
        kind: The kind of the mappings.
        query: The masks.
        page_size: The bytes of their huge pages; 0: they have none.
        in_use: Whether there is swap; None: the kernel is asked if that matters.
    """
    unsure = TABLE[kind].drop_leaves_marker and bool(query.used & Category.SWAPPED)
    if unsure and in_use is None:
        in_use = swap_in_use()
    return _query_rule(kind, query, page_size, unsure, bool(unsure and in_use))


@lru_cache(maxsize=256)  # the same for each look
def _query_rule(
    kind: Kind, query: Query, page_size: int, unsure: bool, in_use: bool
) -> Rule | None:
    align = page_size or HUGE_PAGE
    if query.raw:
        return Rule(kernel_masks=query.masks, result_masks=query.masks, align=align)
    row = TABLE[kind]
    ignored = row.meaningless
    if query.require & ignored or (query.any_of and not query.any_of & ~ignored):
        return None
    known = known_categories()
    decides = bool(query.used & Category.WRITTEN)
    none_of = row.none_of & known if decides else NO_CATEGORY
    markers = Category.GUARD & known if query.used & Category.SWAPPED else NO_CATEGORY
    masks = _kernel_masks(row, query, none_of, markers)
    # A dropped page leaves a marker here. Without swap there is nothing else; with it,
    # pagemap tells the two apart.
    if unsure and not in_use:
        markers |= Category.WPALLOWED
    needed = query.used | none_of | markers
    if decides:
        needed |= Category.WPALLOWED | POPULATED
    masks = masks._replace(returned=needed & ~(ignored & Category.FILE))
    return Rule(
        kernel_masks=masks,
        result_masks=query.masks,
        align=align,
        written_all=Category.WPALLOWED,
        written_any=row.any_of,
        written_none=none_of,
        empty_without=POPULATED if decides and not row.any_of else NO_CATEGORY,
        marker_bits=markers,
        ignored_bits=ignored,
        check_markers=unsure,
    )


def _kernel_masks(
    row: Written, query: Query, none_of: Category, markers: Category
) -> Masks:
    """Return masks for the kernel that every page meets which the query matches.

    Reading a page may clear WRITTEN, SWAPPED and meaningless bits, and never sets one,
    except WRITTEN of an empty entry. So required bits may be required of the kernel
    too, and of the excluded bits those that are never cleared.
    """
    exclude = query.exclude & ~(row.meaningless | Category.WRITTEN | Category.SWAPPED)
    require = query.require
    any_of = query.any_of
    if require & Category.WRITTEN:
        require |= Category.WPALLOWED
        exclude |= none_of
        any_of = any_of or row.any_of
    if require & Category.SWAPPED:
        exclude |= markers
    masks = Masks(
        mask=require | exclude,
        inverted=exclude,
        anyof=any_of & ~(row.meaningless & Category.FILE),
    )
    return masks if row.any_of else _with_empty(masks)


def _with_empty(masks: Masks) -> Masks:
    """Widen masks to empty entries, where the written ones among them may match."""
    required = masks.mask & ~masks.inverted
    if required & ~_OF_EMPTY or (masks.anyof and not masks.anyof & _OF_EMPTY):
        return masks  # no empty entry can match
    if required & Category.WRITTEN:
        # Markers match too, and are left out after they are read.
        return masks._replace(
            mask=masks.mask & ~Category.WRITTEN,
            inverted=masks.inverted | Category.PRESENT,
            anyof=Category.WRITTEN | Category.PRESENT,
        )
    return masks._replace(anyof=0) if masks.anyof & Category.WRITTEN else masks


def candidate_rule(kind: Kind, rule: Rule) -> Rule:
    """Return a fast rule for all pages that an exact rule may match, and few others."""
    row = TABLE[kind]
    # The fast path reports empty entries on every kernel, but not everywhere.
    if row.empty is Empty.WRITTEN_APART or (
        row.empty is Empty.WRITTEN and not named_empty_entries().without_table
    ):
        written = Masks(mask=Category.WRITTEN)
        return rule._replace(result_masks=written, candidates=True)
    return Rule(
        kernel_masks=Masks(mask=Category.WRITTEN, returned=Category.WRITTEN),
        # Pages of the file itself are candidates for ever.
        whole_range=bool(row.none_of & Category.FILE),
        align=rule.align,
        skip_holes=bool(row.any_of),
        candidates=True,
    )


def protection_scan(mappings: MappingSet) -> tuple[Spans, list[Rule]]:
    """Return the scan that protects the populated pages of private mappings.

    Pages that cannot be written are left alone: a store to one of them makes another
    page, which has no protection.
    """
    indices: dict[KindKey, int] = {}
    rules: list[Rule] = []
    for kind, row in TABLE.items():
        if row.protected_by is not Protection.SCAN:
            continue
        indices[kind, 0] = len(rules)
        exclude = row.none_of & known_categories()
        rules.append(
            Rule(
                kernel_masks=Masks(
                    mask=Category.WPALLOWED | Category.WRITTEN | exclude,
                    inverted=exclude,
                    anyof=row.any_of,
                    returned=Category.WRITTEN,
                ),
                protect=True,
                align=HUGE_PAGE,
            )
        )
    return spans_of(mappings, indices), rules


@lru_cache(maxsize=64)  # the same for each look
def new_memory_rule(kind: Kind, page_size: int) -> Rule:
    """Return a rule for populated pages that are not registered, labelled WRITTEN."""
    row = TABLE[kind]
    exclude = Category.WPALLOWED | row.none_of & known_categories()
    require = NO_CATEGORY if row.any_of else Category.PRESENT
    shown = (Category.FILE | POPULATED) & ~row.meaningless
    return Rule(
        kernel_masks=Masks(
            mask=exclude | require,
            inverted=exclude,
            anyof=row.any_of,
            returned=shown,
        ),
        result_masks=Masks(returned=shown),
        align=page_size or HUGE_PAGE,
        label=Category.WRITTEN,
    )


def present_rule() -> Rule:
    """Return a rule for the present pages of shared memory, labelled WRITTEN."""
    shown = Category.PRESENT | Category.FILE
    return Rule(
        kernel_masks=Masks(mask=Category.PRESENT, returned=shown),
        result_masks=Masks(returned=shown),
        align=HUGE_PAGE,
        label=Category.WRITTEN,
    )


def unregistered_rule(align: int) -> Rule:
    """Return a rule for the populated pages of all memory that is not registered."""
    return Rule(
        kernel_masks=Masks(
            mask=Category.WPALLOWED,
            inverted=Category.WPALLOWED,
            anyof=POPULATED,
            returned=POPULATED,
        ),
        align=align,
    )


def populated_rule() -> Rule:
    """Return a rule for the populated pages of private memory, registered or not."""
    exclude = _NO_STORE & known_categories()
    return Rule(
        kernel_masks=Masks(
            mask=exclude, inverted=exclude, anyof=POPULATED, returned=POPULATED
        ),
        align=HUGE_PAGE,
    )


def stale_rule(*, registered: bool) -> Rule:
    """Return a rule for the populated pages that have the bit of the protection.

    Args:
        registered: Whether to ask in registered memory, or else in all other memory.
            There Linux 7.3 reports WRITTEN of no page, so all pages match.
    """
    unwanted = Category.WRITTEN | (NO_CATEGORY if registered else Category.WPALLOWED)
    return Rule(
        kernel_masks=Masks(
            mask=Category.WRITTEN | Category.WPALLOWED,
            inverted=unwanted,
            anyof=POPULATED,
            returned=POPULATED,
        ),
        align=HUGE_PAGE,
    )


def registered_rule(align: int = 1) -> Rule:
    """Return a rule for the first page of each range that is registered."""
    wp_allowed = Masks(mask=Category.WPALLOWED, returned=Category.WPALLOWED)
    return Rule(kernel_masks=wp_allowed, first_page=True, align=align)


def one_rule(mappings: MappingSet) -> dict[KindKey, int]:
    """Return rule 0 for each kind of the mappings."""
    return dict.fromkeys(mappings.kinds, 0)
