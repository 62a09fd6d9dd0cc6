"""The library functions for groups of processes."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Self

from pagescan.model.errors import UsageError
from pagescan.model.groups import GroupLook, GroupMaps, GroupScan, GroupTick
from pagescan.model.memory import Region
from pagescan.model.units import plural
from pagescan.native import Pace
from pagescan.scanner.query import Query
from pagescan.session.group_lookup import find_group
from pagescan.session.group_scan import maps_of_members, scan_members
from pagescan.session.group_session import arm_group, look_at_group
from pagescan.session.opened import end_each
from pagescan.session.watched import Follower, Terms
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.group import Selector
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible


def scan_group(
    group: Selector,
    ranges: Iterable[str] | None = None,
    query: Query | None = None,
) -> GroupScan:
    """Return the page regions of each process of a group that match a query.

    Args:
        group: The processes: a `Tree`, `Cgroup`, `Unit`, `Container` or `Match`.
        ranges: RANGE words, as the command takes them; None: everything.
        query: The masks; None: all pages, with the default categories.

    Raises:
        UsageError: A range is malformed.
        TargetError: There is no process in the group.
        PagescanError: No process could be scanned; the message has a reason.

    Examples:
        >>> import pagescan
        >>> present = pagescan.Query(require=pagescan.Category.PRESENT)
        >>> found = pagescan.scan_group(pagescan.Tree.of(4242), query=present)
        >>> [facts.target.pid for facts, batch in found.parts]
        [4242]
        >>> found.summary.pages > 0
        True
    """
    selection = Selection.parse(ranges or ())
    return scan_members(group, selection, query or Query(), Pace())


def maps_group(
    group: Selector, ranges: Iterable[str] | None = None, *, smaps: bool = False
) -> GroupMaps:
    """Return one row per mapping of each process of a group.

    Args:
        group: The processes.
        ranges: RANGE words; None: everything.
        smaps: Also read smaps, for `shares`: it holds the mmap lock of a process for a
            whole mapping at a time.

    Raises:
        PagescanError: As for `scan_group`.

    Examples:
        >>> import pagescan
        >>> found = pagescan.maps_group(pagescan.Tree.of(4242), ["[stack]"])
        >>> [(facts.target.pid, len(rows)) for facts, rows in found.parts]
        [(4242, 1)]
    """
    return maps_of_members(group, Selection.parse(ranges or ()), Pace(), smaps=smaps)


class GroupTracking:
    """The tracking of a group: a context manager that disarms all at the end."""

    def __init__(self, group: WatchedGroup, undo: contextlib.ExitStack) -> None:
        """Take over an armed group; only `track_group` calls this."""
        self._group = group
        self._undo = undo
        self._is_closed = False

    def look(self) -> GroupTick:
        """Return what each process has written since the last look; protect it again.

        Processes that have come since then are armed: `joined_at` tells when. Those
        that have gone are in `members` a last time, with `ended_at`.

        Raises:
            UsageError: The tracking is closed. A look would arm the processes again.
        """
        if self._is_closed:
            raise UsageError("the tracking of this group is closed")
        return self._group.look()

    def written(self) -> Iterator[tuple[int, Region]]:
        """Yield the regions that were written since the last look, each with a pid."""
        return self.look().regions()

    def close(self) -> None:
        """Disarm all processes; a second call has no effect."""
        self._is_closed = True
        self._undo.close()

    def __repr__(self) -> str:
        group, count = self._group.selector, len(self._group.members)
        state = "closed" if self._is_closed else plural(count, "member")
        return f"<GroupTracking of {group.kind} {group.name}: {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track_group(
    group: Selector,
    ranges: Iterable[str] | None = None,
    *,
    restore_huge: bool = True,
    writers: Follower | None = None,
) -> GroupTracking:
    """Arm the processes of a group and return their tracking.

    Args:
        group: The processes.
        ranges: RANGE words; None: everything.
        restore_huge: At the end, put back the huge pages that tracking has split.
        writers: A `GroupWriterWatch`: from the arming of each process on, its faults
            are sampled.

    Raises:
        TargetError: There is no process in the group.
        KernelUnsupportedError: The kernel has no asynchronous write-protect.
        PagescanError: No process could be armed; the message has a reason.

    Examples:
        >>> import pagescan
        >>> with pagescan.track_group(pagescan.Tree.of(4242)) as tracking:
        ...     look = tracking.look()
        >>> [facts.target.pid for facts, _ in look.members]
        [4242]
        >>> look.untracked
        ()
    """
    selection = Selection.parse(ranges or ())
    check_possible()
    terms = Terms(
        selection,
        Pace(),
        restore_huge=restore_huge,
        follower=writers,
        holder="track" if writers is None else "who",
    )
    with contextlib.ExitStack() as undo:
        armed = undo.enter_context(WatchedGroup.armed(group, terms))
        return GroupTracking(armed, undo.pop_all())


def start_group_session(
    group: Selector, ranges: Iterable[str] | None = None
) -> GroupLook:
    """Arm the processes of a group for a keeper, like `pagescan arm --tree`.

    Args:
        group: The processes.
        ranges: RANGE words; None: everything.

    Returns:
        The armed processes, without looks, and those that could not be armed.

    Raises:
        SessionError: The group has a session already.
        PagescanError: No process could be armed; the message has a reason.

    Examples:
        >>> import pagescan
        >>> tree = pagescan.Tree.of(4242)
        >>> armed = pagescan.start_group_session(tree)
        >>> look = pagescan.look_at_group_session(tree, rearm=True)
        >>> look.since == armed.since
        True
        >>> pagescan.end_group_session(tree)
    """
    selection = Selection.parse(ranges or ())
    check_possible()
    return arm_group(group, Terms(selection, Pace()))


def look_at_group_session(group: Selector, *, rearm: bool = False) -> GroupLook:
    """Return what each process of a group has written, like `pagescan diff --tree`.

    Args:
        group: The group of the session.
        rearm: Protect the found pages in the same step, and arm the processes that have
            come.

    Raises:
        SessionError: No session of this group exists, or it was lost.
    """
    return look_at_group(find_group(group.kind, group.name), rearm=rearm)


def end_group_session(group: Selector, *, restore_huge: bool = True) -> None:
    """End the session of a group: nothing is left in any process.

    Args:
        group: The group of the session.
        restore_huge: Put back the huge pages that tracking has split.

    Raises:
        SessionError: No session of this group exists.
        KeyboardInterrupt: It came while huge pages were put back.
    """
    found = find_group(group.kind, group.name)
    ended = list(end_each(found.members, restore_huge=restore_huge))
    if any(restored.caught for _, _, restored in ended):
        raise KeyboardInterrupt
