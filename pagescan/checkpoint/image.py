"""Lists the pages of an image of a process, and the memory that belongs elsewhere."""

from collections.abc import Iterable, Sequence

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import NO_CATEGORY, Category, Kind, Mapping, Untracked
from pagescan.model.results import Action
from pagescan.native import Columns
from pagescan.scanner.query import Query
from pagescan.scanner.rules import POPULATED
from pagescan.scanner.scanner import Scanner
from pagescan.target.kernel import known_categories
from pagescan.target.process import Target

_SHARED = "shared memory: it is stored once, with its object, not with each process"
_SPECIAL = "the kernel provides it: every process has its own"


def list_pages(
    scanner: Scanner, selected: Iterable[Mapping], action: Action
) -> Columns:
    """List the pages of an image: zero pages as ZERO, all others with `action`.

    To a caller that is not root, a dropped copy of a file's page may look like a page
    on swap. Its bytes are right in either case, so it is stored.

    Args:
        scanner: The scanner of the process.
        selected: Its mappings; the private ones are listed.
        action: What to do with pages that are populated.
    """
    files: list[Mapping] = []
    others: list[Mapping] = []
    for item in _private(selected):
        (files if item.kind is Kind.PRIVATE_FILE else others).append(item)
    words: dict[int, int] = {0: action, Category.PFNZERO.value: Action.ZERO}
    on_swap = {Category.SWAPPED.value: Action.DUMP}
    return native.overlay(
        _scan(scanner, others, Category.PFNZERO, words),
        _scan(scanner, files, Category.PFNZERO | Category.SWAPPED, words | on_swap),
        outside=True,
    )


def _scan(
    scanner: Scanner,
    private: Sequence[Mapping],
    returned: Category,
    actions: dict[int, int],
) -> Columns:
    """Scan private mappings; return an action for each combination of categories."""
    query = Query(
        any_of=POPULATED,
        exclude=Category.FILE | Category.GUARD & known_categories(),
        returned=returned,
    )
    return native.relabel(scanner.scan(MappingSet(private), query), actions)


def join_private(
    regions: Columns, selected: Iterable[Mapping], target: Target
) -> Batch:
    """Join regions with the private mappings; drop those that were unmapped."""
    private = MappingSet(_private(selected))
    return Batch.join(
        native.inside(regions, *private.bounds),
        private,
        page_size=target.facts.page_size,
        returned=NO_CATEGORY,
    )


def left_out(selected: Iterable[Mapping]) -> tuple[Untracked, ...]:
    """Return the mappings that belong elsewhere: shared memory, and the kernel's."""
    return tuple(
        Untracked(
            item.start,
            item.end,
            item.label,
            _SPECIAL if item.kind is Kind.SPECIAL else _SHARED,
        )
        for item in selected
        if item.shared or item.kind is Kind.SPECIAL
    )


def _private(selected: Iterable[Mapping]) -> list[Mapping]:
    return [
        item for item in selected if not item.shared and item.kind is not Kind.SPECIAL
    ]
