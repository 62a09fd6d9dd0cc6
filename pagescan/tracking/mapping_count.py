"""Counts a target's mappings: how many it has, may have, and has due to tracking.

The kernel keeps neighbours in one mapping if all their properties are equal. Registered
memory differs from unregistered memory in a way that /proc/PID/maps does not show. So
neighbours that look alike there are separate only because of tracking, or for an
earlier reason; the latter are counted when a target is armed.
"""

from collections.abc import Sequence
from itertools import pairwise

from pagescan.model.mapping_set import look_alike
from pagescan.model.memory import Mapping

_LIMIT = "/proc/sys/vm/max_map_count"
_USUAL_LIMIT = 65530  # if the file cannot be read
_PART_OF_LIMIT = 0.95  # the rest is reserved for the target


def count_alike(there: Sequence[Mapping]) -> int:
    """Return how many neighbours among all of a target's mappings look alike."""
    return sum(
        one.end == other.start and look_alike(one, other)
        for one, other in pairwise(there)
    )


def most_mappings() -> int:
    """Return the number of mappings above which no more are registered.

    Source: vm.max_map_count, less 5 %.
    """
    try:
        with open(_LIMIT, "rb") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        limit = _USUAL_LIMIT
    return int(limit * _PART_OF_LIMIT)
