"""The one table of the metrics: name, type, labels, help, and where each comes from.

Kinds and states of memory are disjoint, so that a sum over them counts nothing twice.
"""

import enum
from collections.abc import Mapping as Dict
from typing import NamedTuple

from pagescan.model.memory import Category, Kind, Mapping

MOST_SERIES = 25
"""The largest number of series per group."""
MOST_GROUPS = 100
"""The largest number of named groups; all other processes are in `other`."""
OTHER = "other"


class State(enum.Enum):
    """The state of a page; of several categories, the first in this order decides."""

    ZERO = ("zero", Category.PFNZERO)
    SWAPPED = ("swapped", Category.SWAPPED)
    HUGE = ("huge", Category.HUGE)
    FILE = ("file", Category.FILE)
    PRESENT = ("present", Category.PRESENT)

    def __init__(self, label: str, category: Category) -> None:
        """Name the label of the state, and the category that shows it."""
        self.label = label
        self.category = category

    __hash__ = object.__hash__  # Enum's own is Python code


SHOWN = Category(0)
"""The categories that decide the state of a page."""
for _state in State:
    SHOWN |= _state.category

OF_FILE = frozenset({State.FILE, State.HUGE})
"""The states of pages that belong to a file, where a file is mapped."""


def state_of(bits: int) -> State:
    """Return the state of a populated page with these categories."""
    return next((item for item in State if bits & item.category), State.PRESENT)


_OWN = (State.PRESENT, State.SWAPPED)

STATES: Dict[str, tuple[State, ...]] = {
    "anon": (*_OWN, State.HUGE, State.ZERO),
    "file": (*_OWN, State.FILE, State.HUGE),
    "shmem": (State.FILE, State.SWAPPED, State.HUGE),
    "stack": (*_OWN, State.ZERO),
    "code": (*_OWN, State.FILE, State.HUGE),
}
"""The states per kind of memory; a page in another state counts in the first."""


def kind_of(mapping: Mapping, in_memory: frozenset[tuple[int, int]]) -> str | None:
    """Return the kind of memory of a mapping; None: it is the kernel's own.

    Args:
        mapping: One line of /proc/PID/maps.
        in_memory: The devices of files that are in memory alone.
    """
    if mapping.kind is Kind.SPECIAL:
        return None
    if mapping.name.startswith("[stack"):
        return "stack"
    if mapping.perms[2] == "x":
        return "code"
    if not mapping.inode:
        return "anon"
    if mapping.shared and (
        mapping.page_size
        or mapping.device in in_memory
        or mapping.name.startswith("/dev/shm/")  # noqa: S108 - also of a container
    ):
        return "shmem"
    return "file"


class Metric(NamedTuple):
    """One row of the table.

    Attributes:
        name: The whole name.
        kind: gauge, or counter.
        labels: The labels of each series; the group of a container also has
            `container_id`, and `pod_uid` in a pod.
        help: The HELP text. `{tick}` stands for the time between two looks.
        source: Where the number comes from.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    source: str


MEMORY = Metric(
    "pagescan_memory_bytes",
    "gauge",
    ("group", "kind", "state"),
    "Populated memory, at the scrape. States are disjoint. Pages of a file count once"
    " per group, as often as in the process that has most of them.",
    "PAGEMAP_SCAN in slices; cachestat(2) for the swap of shared memory",
)
PROCESSES = Metric(
    "pagescan_processes",
    "gauge",
    ("group",),
    "Processes of the group, at the scrape.",
    "/proc",
)
WRITTEN = Metric(
    "pagescan_written_bytes_total",
    "counter",
    ("group", "kind"),
    "Bytes of the pages written, looked at every {tick}: a page counts once per look.",
    "looks that protect again (userfaultfd), at pagescan's own tick",
)
UNTRACKED = Metric(
    "pagescan_untracked_bytes",
    "gauge",
    ("group", "reason"),
    "Memory that could be written and is not tracked: its writes are not counted.",
    "the last look",
)
LONGEST_HOLD = Metric(
    "pagescan_longest_hold_seconds",
    "gauge",
    (),
    "Longest time in the last five minutes for which one call held a process's mmap"
    " lock.",
    "the clock around each call",
)
DURATION = Metric(
    "pagescan_scrape_duration_seconds",
    "gauge",
    (),
    "Duration of the scans for this scrape.",
    "the clock",
)
UP = Metric(
    "pagescan_up",
    "gauge",
    (),
    "1, or 0 if no selected process could be read, or if the looks have stopped.",
    "this scrape, and the last look",
)
UNREAD = Metric(
    "pagescan_unread_processes",
    "gauge",
    (),
    "Selected processes whose memory could not be read.",
    "this scrape",
)
FOLDED = Metric(
    "pagescan_folded_groups",
    "gauge",
    (),
    f"Groups beyond the first {MOST_GROUPS}: their processes are in the group other.",
    "this scrape",
)
TICKS = Metric(
    "pagescan_ticks_total",
    "counter",
    (),
    "Looks at all tracked processes, one every {tick}.",
    "pagescan's own tick",
)
BUILD = Metric(
    "pagescan_build_info",
    "gauge",
    ("version",),
    "1; the version of pagescan.",
    "the package",
)

TABLE = (
    MEMORY,
    PROCESSES,
    WRITTEN,
    UNTRACKED,
    LONGEST_HOLD,
    DURATION,
    UP,
    UNREAD,
    FOLDED,
    TICKS,
    BUILD,
)
"""Every metric, in the order of the output."""
