"""How many mappings a target has, may have, and has because it is tracked.

The kernel keeps two neighbours as one mapping where all about them is equal. What is
registered differs from what is not, in a way that /proc/PID/maps does not show. So
neighbours that look alike there are two mappings only because of tracking, or for a
reason that was there before: those are counted when a target is armed.
"""

from collections.abc import Sequence
from itertools import pairwise

from pagescan.model.memory import Mapping

_LIMIT = "/proc/sys/vm/max_map_count"
_USUAL_LIMIT = 65530  # where the file cannot be read
_PART_OF_LIMIT = 0.95  # the rest is the target's own


def look_alike(one: Mapping, other: Mapping) -> bool:
    """Whether two mappings touch, and /proc/PID/maps tells no difference."""
    return (
        one.end == other.start
        and one.perms == other.perms
        and one.name == other.name
        and one.inode == other.inode
        and one.device == other.device
        and one.page_size == other.page_size
        and (not one.inode or one.offset + one.end - one.start == other.offset)
    )


def count_alike(there: Sequence[Mapping]) -> int:
    """Return how many neighbours among all mappings of a target look alike."""
    return sum(
        one.end == other.start and look_alike(one, other)
        for one, other in pairwise(there)
    )


def most_mappings() -> int:
    """Return how many mappings a target may have before no more is registered.

    Source: vm.max_map_count, less 5 %.
    """
    try:
        with open(_LIMIT, "rb") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        limit = _USUAL_LIMIT
    return int(limit * _PART_OF_LIMIT)
