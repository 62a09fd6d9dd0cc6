"""The types of the names that `__init__.py` loads at their first use."""

from pagescan.native.arenas import KeptArenas, keep_malloc
from pagescan.native.copies import (
    Comparison,
    compare_copies,
    count_copies,
    mark_copies,
)
from pagescan.native.door import address_of, library
from pagescan.native.files import open_in_root
from pagescan.native.huge import Collapse
from pagescan.native.maps import (
    MapsRows,
    parse_maps,
    read_maps,
    read_memory,
    read_pieces,
    swapped_pages,
)
from pagescan.native.output import KeptOutput
from pagescan.native.pace import (
    LONGEST_SLICE,
    LONGEST_TO_PROTECT,
    MAX_STALL_NS,
    Meter,
    Pace,
    Progress,
    keeping_the_processor,
)
from pagescan.native.pages import PageCounts, RangeSums, UnpackedLooks
from pagescan.native.perf import (
    Faults,
    drain_faults,
    lost_samples,
    open_faults,
    same_memory,
    share_ring,
    stop_faults,
)
from pagescan.native.process import Attached, Deadline, attach, can_attach
from pagescan.native.recording import join_packed, pack, unpack
from pagescan.native.regions import (
    inside,
    join,
    outside,
    overlay,
    relabel,
    shares,
    tally,
    whole_units,
)
from pagescan.native.scan import PreparedScan, scan_once
from pagescan.native.tracee import Tracee, launch
from pagescan.native.types import (
    ALL_PAGES,
    CATEGORY_BITS,
    Columns,
    Masks,
    Rule,
    Shares,
    Spans,
    Windows,
)
from pagescan.native.uffd import (
    UFFD_FEATURES,
    UFFD_FORKS,
    read_fork,
    uffd_api,
    uffd_is_of,
    uffd_is_registered,
    uffd_open,
    uffd_protect,
    uffd_register,
    uffd_unregister,
)
from pagescan.native.watch import Watch
from pagescan.native.writers import Writers, join_writers

__all__ = [
    "ALL_PAGES",
    "CATEGORY_BITS",
    "LONGEST_SLICE",
    "LONGEST_TO_PROTECT",
    "MAX_STALL_NS",
    "UFFD_FEATURES",
    "UFFD_FORKS",
    "Attached",
    "Collapse",
    "Columns",
    "Comparison",
    "Deadline",
    "Faults",
    "KeptArenas",
    "KeptOutput",
    "MapsRows",
    "Masks",
    "Meter",
    "Pace",
    "PageCounts",
    "PreparedScan",
    "Progress",
    "RangeSums",
    "Rule",
    "Shares",
    "Spans",
    "Tracee",
    "UnpackedLooks",
    "Watch",
    "Windows",
    "Writers",
    "address_of",
    "attach",
    "can_attach",
    "compare_copies",
    "count_copies",
    "drain_faults",
    "inside",
    "join",
    "join_packed",
    "join_writers",
    "keep_malloc",
    "keeping_the_processor",
    "launch",
    "library",
    "lost_samples",
    "mark_copies",
    "open_faults",
    "open_in_root",
    "outside",
    "overlay",
    "pack",
    "parse_maps",
    "read_fork",
    "read_maps",
    "read_memory",
    "read_pieces",
    "relabel",
    "same_memory",
    "scan_once",
    "share_ring",
    "shares",
    "stop_faults",
    "swapped_pages",
    "tally",
    "uffd_api",
    "uffd_is_of",
    "uffd_is_registered",
    "uffd_open",
    "uffd_protect",
    "uffd_register",
    "uffd_unregister",
    "unpack",
    "whole_units",
]
