"""The four masks of a PAGEMAP_SCAN query."""

from dataclasses import dataclass

from pagescan.model.memory import DEFAULT_RETURNED, NO_CATEGORY, Category
from pagescan.native import ALL_PAGES, Masks


@dataclass(frozen=True, slots=True)
class Query:
    """Which pages to return, and with which categories: the masks of PAGEMAP_SCAN.

    Attributes:
        require: All of these (category_mask).
        any_of: At least one of these, if any are given (category_anyof_mask).
        exclude: None of these (category_inverted, and in category_mask).
        returned: The reported categories; neighbours that agree are joined
            (return_mask).
        max_pages: Stop after this many pages; None: no limit.
        raw: The kernel's own bits, without the rules for each kind of mapping.

    Examples:
        >>> from pagescan import Category, Query
        >>> private = Query(require=Category.PRESENT, exclude=Category.FILE)
        >>> private.max_pages is None
        True
    """

    require: Category = NO_CATEGORY
    any_of: Category = NO_CATEGORY
    exclude: Category = NO_CATEGORY
    returned: Category = DEFAULT_RETURNED
    max_pages: int | None = None
    raw: bool = False

    @property
    def used(self) -> Category:
        """Every category that the masks name."""
        return self.require | self.any_of | self.exclude | self.returned

    @property
    def page_limit(self) -> int:
        """The most pages, as a number that fits in 64 bits."""
        return ALL_PAGES if self.max_pages is None else min(self.max_pages, ALL_PAGES)

    @property
    def masks(self) -> Masks:
        """The masks in the form of the kernel's structure."""
        return Masks(
            mask=self.require | self.exclude,
            inverted=self.exclude,
            anyof=self.any_of,
            returned=self.returned,
        )
