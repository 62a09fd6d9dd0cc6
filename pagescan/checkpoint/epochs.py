"""Plans which pages a checkpoint must store, and tells whether one is needed.

A plan is complete, or builds on the image of an earlier epoch. A session numbers its
rearms: these numbers are the epochs. A plan rearms, and its epoch is the new number.
With each request the consumer names the last epoch whose image it has stored: that
epoch is acknowledged. Pages re-protected since are remembered until a later epoch is
acknowledged, so an unfinished image loses nothing: its pages are in the next plan too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pagescan import native
from pagescan.checkpoint.plan import Plan, lay_out
from pagescan.model.batch import Batch
from pagescan.model.errors import SessionError, UsageError
from pagescan.model.looks import Look
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import NO_CATEGORY, Category, Kind, Mapping, Untracked
from pagescan.model.ranges import ranges_of, union, unlabelled
from pagescan.model.results import Action, Cost
from pagescan.native import Columns, Pace
from pagescan.scanner.query import Query
from pagescan.scanner.rules import POPULATED
from pagescan.scanner.scanner import Scanner
from pagescan.session.locks import find
from pagescan.session.opened import Opened, opened
from pagescan.session.record import Session
from pagescan.target import maps as mappings
from pagescan.target.kernel import known_categories
from pagescan.target.process import Target

_SHARED = "shared memory: it is stored once, with its object, not with each process"
_SPECIAL = "the kernel provides it: every process has its own"


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and how it came about.

    Attributes:
        plan: Which pages to store.
        session: The session as it was before the plan; None: planned without a session.
        look: The look that rearmed; None: planned without a session.
        cost: What making the plan cost the target.
        notes: Remarks for the user, one sentence each.
    """

    plan: Plan
    session: Session | None
    look: Look | None
    cost: Cost
    notes: tuple[str, ...] = ()


def plan_now(target: Target, pace: Pace | None = None) -> Planned:
    """Plan a complete image of a process as it is now; changes nothing in it."""
    scanner = Scanner(target, pace)
    there = mappings.read(target)
    found = _populated(scanner, _private(there), Action.DUMP)
    plan = Plan(target.facts, _batch(found, target), None, None, _left_out(there))
    return Planned(plan, None, None, scanner.take_cost())


def plan_epoch(pid: int | None, epoch: int, pace: Pace | None = None) -> Planned:
    """Plan which pages to store on top of the image of an epoch; rearms the session.

    Args:
        pid: The target; None: the target of the only session.
        epoch: The epoch of the image that the caller has, which this acknowledges;
            0: the caller has no image, and the plan is complete.
        pace: How the target's mmap lock is spared.

    Raises:
        SessionError: There is no session, or no plan of that epoch was made.
    """
    with opened(find(pid), rearm=True, pace=pace) as through:
        before = through.before
        _check(through, epoch)
        lacking = _lacking(through, epoch)
        complete = lacking is None
        target, tracking = through.target, through.tracking
        chosen = tracking.armed.selection.select(mappings.read(target))
        untouched = Action.DUMP if complete else Action.KEEP
        populated = _populated(tracking.scanner, _private(chosen), untouched)
        counted = tracking.scanner.take_cost()
        look = tracking.look(rearm=True)
        written = look.batch.columns()
        lacked = Columns.empty() if lacking is None else lacking
        maybe = union(lacked, through.with_ends(_ranges(before.untracked)))
        found = lay_out(populated, written, maybe)
        chosen = tracking.armed.selection.select(mappings.read(target))
        batch = _batch(found, target, chosen)
        number = tracking.armed.epoch
        kept = through.commit(
            tracking.since,
            union(batch.columns() if complete else lacked, through.with_ends(written)),
            0 if complete else epoch,
            number,
        )
    plan = Plan(
        target.facts, batch, number, None if complete else epoch, _left_out(chosen)
    )
    notes = []
    if complete and epoch:
        notes.append(
            f"the pages written since epoch {epoch} are no longer known:"
            " this plan is complete and builds on no image"
        )
    if not kept:
        notes.append("the session's directory is full: the next plan will be complete")
    return Planned(plan, before, look, look.cost + counted, tuple(notes))


def acknowledge(pid: int | None, epoch: int) -> None:
    """Tell a session that the image of an epoch is stored: later plans build on it.

    Pages written up to that epoch are not planned again, unless they change again.

    Raises:
        SessionError: There is no session, or no plan of that epoch was made.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> plan = pagescan.dump_plan(4242, 0)
        >>> pagescan.acknowledge(4242, plan.epoch)
        >>> pagescan.end_session(4242)
    """
    if epoch < 1:
        raise UsageError(f"there is no image of epoch {epoch}: epochs begin at 1")
    with opened(find(pid), rearm=True) as through:
        before = through.before
        _check(through, epoch)
        lacking = _lacking(through, epoch)
        if lacking is None:  # the list was lost, or a later epoch is acknowledged
            through.unchanged()
        else:
            through.commit(before.since, lacking, epoch)


def changed(
    pid: int | None, epoch: int | None = None, pace: Pace | None = None
) -> bool:
    """Whether anything was written since the acknowledged epoch, or else since arming.

    Args:
        pid: The target; None: the target of the only session.
        epoch: The epoch to acknowledge first; None: acknowledge none.
        pace: How the target's mmap lock is spared.

    Raises:
        SessionError: There is no session, or no plan of that epoch was made.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> pagescan.dump_plan(4242, 0).epoch
        1
        >>> pagescan.changed(4242)  # that image is not acknowledged yet
        True
        >>> pagescan.end_session(4242)
    """
    if epoch is not None:
        acknowledge(pid, epoch)
    with opened(find(pid), pace=pace) as through:
        before = through.before
        if through.found().starts:  # of a look whose output is not complete
            return True
        if before.planned:
            lacking = through.pending()
            if lacking is None or lacking.starts:
                return True
        elif before.since is None:  # a part was protected later: it is unknown which
            return True
        return _unknown(through) or len(through.tracking.look().batch) > 0


def _check(through: Opened, epoch: int) -> None:
    """Raise SessionError, and change nothing, if no plan of that epoch was made."""
    session = through.before
    if epoch > session.planned:
        through.unchanged()
        last = f"the last is {session.planned}" if session.planned else "it has no plan"
        raise SessionError(
            f"no plan of epoch {epoch} was made in session {session.name}: {last}",
            hint=f"pagescan dump-plan {session.name} --epoch 0 starts over",
        )


def _lacking(through: Opened, epoch: int) -> Columns | None:
    """Return the pages that an image of that epoch may lack; None: unknown."""
    before = through.before
    lacking = through.pending()
    if not epoch or lacking is None or epoch < before.acknowledged:
        return None
    return Columns.empty() if epoch == before.epoch else lacking


def _unknown(through: Opened) -> bool:
    """Whether any writable memory is untracked: a store to it would go unnoticed."""
    untracked = through.before.untracked
    return any(
        item.start < mapping.end and mapping.start < item.end
        for mapping in mappings.read(through.target)
        for item in untracked
        if mapping.kind is not Kind.SPECIAL and mapping.perms[1] == "w"
    )


def _private(chosen: Iterable[Mapping]) -> MappingSet:
    return MappingSet(
        item for item in chosen if not item.shared and item.kind is not Kind.SPECIAL
    )


def _left_out(chosen: Iterable[Mapping]) -> tuple[Untracked, ...]:
    return tuple(
        Untracked(
            item.start,
            item.end,
            item.label,
            _SPECIAL if item.kind is Kind.SPECIAL else _SHARED,
        )
        for item in chosen
        if item.shared or item.kind is Kind.SPECIAL
    )


def _populated(scanner: Scanner, private: Sequence[Mapping], action: Action) -> Columns:
    """List the pages of an image: zero pages as ZERO, all others with `action`.

    To a caller that is not root, a dropped copy of a file's page may look like a page
    on swap. Its bytes are right in either case, so it is stored.
    """
    files: list[Mapping] = []
    others: list[Mapping] = []
    for item in private:
        (files if item.kind is Kind.PRIVATE_FILE else others).append(item)
    words: dict[int, int] = {0: action, Category.PFNZERO.value: Action.ZERO}
    on_swap = {Category.SWAPPED.value: Action.DUMP}
    return native.overlay(
        _found(scanner, others, Category.PFNZERO, words),
        _found(scanner, files, Category.PFNZERO | Category.SWAPPED, words | on_swap),
        outside=True,
    )


def _found(
    scanner: Scanner,
    private: Sequence[Mapping],
    returned: Category,
    actions: dict[int, int],
) -> Columns:
    query = Query(
        any_of=POPULATED,
        exclude=Category.FILE | Category.GUARD & known_categories(),
        returned=returned,
    )
    return native.relabel(scanner.scan(MappingSet(private), query), actions)


def _ranges(untracked: Iterable[Untracked]) -> Columns:
    """Return untracked parts as regions: each plan dumps them."""
    return unlabelled(ranges_of((item.start, item.end) for item in untracked))


def _batch(
    found: Columns, target: Target, chosen: Iterable[Mapping] | None = None
) -> Batch:
    """Join with the private mappings, and drop regions that have been unmapped."""
    private = _private(mappings.read(target) if chosen is None else chosen)
    return Batch.join(
        native.inside(found, *private.bounds),
        private,
        page_size=target.facts.page_size,
        returned=NO_CATEGORY,
    )


def dump_plan(pid: int, epoch: int | None = None) -> Plan:
    """Return the pages that a checkpoint has to store.

    Args:
        pid: The process.
        epoch: None: a complete plan, which does not touch the target. A number N:
            through the session, image N is stored, and the plan lists the pages to add
            to it; 0: no image is stored yet.

    Raises:
        SessionError: There is no session, or no plan of that epoch was made.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> plan = pagescan.dump_plan(4242, 0)
        >>> plan.epoch, plan.parent, plan.pages()["keep"]
        (1, None, 0)
        >>> pagescan.dump_plan(4242, 1).parent
        1
        >>> pagescan.end_session(4242)
    """
    if epoch is None:
        with Target.open(pid) as target:
            return plan_now(target).plan
    return plan_epoch(pid, epoch).plan
