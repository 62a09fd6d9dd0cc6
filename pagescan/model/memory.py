"""The records that travel from the scan to the screen: frozen, without I/O.

Most are named tuples: creating a dataclass costs 0.5 ms at each start of a command.
"""

import enum
import os
from dataclasses import dataclass
from typing import NamedTuple


class Category(enum.IntFlag):
    """The PAGE_IS_* bits of PAGEMAP_SCAN, by the kernel's names and values."""

    WPALLOWED = 0x001
    WRITTEN = 0x002
    FILE = 0x004
    PRESENT = 0x008
    SWAPPED = 0x010
    PFNZERO = 0x020
    HUGE = 0x040
    SOFT_DIRTY = 0x080
    GUARD = 0x100

    __hash__ = int.__hash__  # Enum's own is Python code

    @property
    def names(self) -> tuple[str, ...]:
        """The lower-case names of the set bits, in the kernel's order."""
        return tuple(name for bit, name in CATEGORY_NAMES if self & bit)

    @classmethod
    def parse(cls, name: str) -> "Category":
        """Return the category of that name; KeyError if it does not exist."""
        if not name.islower():
            raise KeyError(name)
        return cls[name.upper()]


CATEGORY_NAMES: tuple[tuple[Category, str], ...] = tuple(
    (bit, str(bit.name).lower()) for bit in Category
)
PAGE_COUNTED = ("present", "file", "swapped", "pfnzero", "huge", "guard", "written")
"""The categories of which `maps` counts the pages, in the order of its columns."""
NO_CATEGORY = Category(0)
DIGEST = 16
"""Bytes of the digest of a page."""
DEFAULT_RETURNED = (
    Category.WRITTEN | Category.FILE | Category.PRESENT | Category.SWAPPED
)


class Range(NamedTuple):
    """The half-open interval [start, end), in bytes, that a user asks about."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"


class Kind(enum.Enum):
    """The kinds of mapping: they decide how to arm it and which pages are written."""

    ANON = "private anonymous"
    PRIVATE_FILE = "private file"
    SHARED = "shared"
    HUGETLB = "hugetlb"
    SPECIAL = "special"

    __hash__ = object.__hash__  # as in Category: it runs once per mapping


# Kind.ANON runs a function of Python before 3.12; these are read once per mapping.
_ANON, _PRIVATE_FILE, _SHARED, _HUGETLB, _SPECIAL = Kind


# Mappings that the kernel itself keeps up to date: never registered (VM_SPECIAL).
_SPECIAL_NAMES = frozenset({"[vdso]", "[vsyscall]", "[uprobes]"})


class Mapping(NamedTuple):
    """One line of /proc/PID/maps: the kernel's VMA."""

    start: int
    end: int
    perms: str
    offset: int
    device: tuple[int, int]
    inode: int
    name: str
    """The name as maps prints it, newline escaped as \\012; "" without a name."""
    page_size: int = 0
    """Bytes of a hugetlb page; 0: pages of the usual size."""

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def shared(self) -> bool:
        """Whether stores go to memory that other processes may map too."""
        return self.perms[3] == "s"

    @property
    def reserved(self) -> bool:
        """Whether it is a reservation: it allows no access at all (PROT_NONE)."""
        return self.perms[:3] == "---"

    @property
    def kind(self) -> Kind:
        """The kind: a row of the table in scanner/rules.py."""
        _, _, perms, _, _, inode, name, page_size = self
        if name and (name in _SPECIAL_NAMES or name.startswith("[vvar")):
            return _SPECIAL
        if page_size:
            return _HUGETLB
        if perms[3] == "s":
            return _SHARED
        return _PRIVATE_FILE if inode else _ANON

    @property
    def label(self) -> str:
        """The name to show and to select by; "[anon]" where maps has none."""
        return self.name or "[anon]"


@dataclass(frozen=True, slots=True)
class Region:
    """A half-open run of pages with equal categories, within one mapping."""

    start: int
    end: int
    pages: int
    categories: Category
    mapping: Mapping | None
    """None: the mapping was unmapped during the look."""
    new: bool = False
    """The mapping appeared after arming."""

    @property
    def bytes(self) -> int:
        """Length in bytes."""
        return self.end - self.start


NEVER_WRITABLE = "shared and never writable"
"""Why such memory is not tracked: the kernel refuses it, and no store can come."""


class Untracked(NamedTuple):
    """A part of the selection that is not tracked, and why."""

    start: int
    end: int
    mapping: str
    why: str

    @property
    def never_written(self) -> bool:
        """Whether no store can reach it: nothing is missed there."""
        kernel = self.mapping in _SPECIAL_NAMES or self.mapping.startswith("[vvar")
        return kernel or self.why == NEVER_WRITABLE


PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

# Slices end on whole huge pages: a cut through one would split it when it is protected.
HUGE_PAGE = PAGE_SIZE * (PAGE_SIZE // 8)
"""Bytes that one page table maps, its entries being 8 bytes: a huge page of the CPU."""
