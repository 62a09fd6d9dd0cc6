"""Plans which pages a checkpoint must store, and tells whether one is needed.

A plan is complete, or builds on the image of an earlier epoch; `session.epochs` says
which pages such an image may lack.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pagescan.checkpoint.image import join_private, left_out, list_pages
from pagescan.checkpoint.plan import Plan, lay_out
from pagescan.model.errors import SessionError, UsageError
from pagescan.model.looks import Look
from pagescan.model.memory import Kind, Untracked
from pagescan.model.ranges import ranges_of, union, unlabelled
from pagescan.model.results import Action, Cost
from pagescan.native import Columns, Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session.epochs import Epochs
from pagescan.session.lookup import find_session
from pagescan.session.opened import OpenSession, open_session
from pagescan.session.record import Session
from pagescan.target import maps as mappings
from pagescan.target.find import pid_of
from pagescan.target.process import Target


@dataclass(frozen=True, slots=True)
class PlanResult:
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


def plan_now(target: Target, pace: Pace | None = None) -> PlanResult:
    """Plan a complete image of a process as it is now; changes nothing in it."""
    scanner = Scanner(target, pace)
    rows = mappings.read(target)
    pages = list_pages(scanner, rows, Action.DUMP)
    batch = join_private(pages, mappings.read(target), target)
    plan = Plan(target.facts, batch, None, None, left_out(rows))
    return PlanResult(plan, None, None, scanner.take_cost())


def plan_epoch(
    pid: int | str | None, epoch: int, pace: Pace | None = None
) -> PlanResult:
    """Plan which pages to store on top of the image of an epoch; rearms the session.

    Args:
        pid: The target, by its pid or name; None: that of the only session.
        epoch: The epoch of the image that the caller has, which this acknowledges;
            0: the caller has no image, and the plan is complete.
        pace: How the target's mmap lock is spared.

    Raises:
        SessionError: There is no session, or no plan of that epoch was made.
    """
    with open_session(find_session(pid), rearm=True, pace=pace) as session:
        target, tracking = session.target, session.tracking
        selection = tracking.armed.selection
        parent = _check(session, epoch).next_plan(epoch)
        complete = not parent.acknowledged
        # List the populated pages before the look. A page that a store makes in between
        # is in the look. Listed after the look it would be KEEP, and no image has it.
        populated = list_pages(
            tracking.scanner,
            selection.select(mappings.read(target)),
            Action.DUMP if complete else Action.KEEP,
        )
        counted = tracking.scanner.take_cost()
        # Look: get and re-protect the pages that were written since the last rearm.
        look = tracking.look(rearm=True)
        written = look.batch.columns()
        # Dump the pages of the look, and those of earlier looks that no image has yet.
        # Untracked and compared memory may have been written at any moment.
        uncertain = session.with_ends(_regions_of(session.before.untracked))
        unsaved = parent.unsaved or Columns.empty()
        regions = lay_out(populated, written, union(unsaved, uncertain))
        selected = selection.select(mappings.read(target))
        batch = join_private(regions, selected, target)
        # Commit before the caller sees the plan: until its image is acknowledged, these
        # pages are in the next plan too.
        protected = session.with_ends(written)
        if complete:
            protected = union(batch.columns(), protected)
        number = tracking.armed.epoch
        epochs = parent.rearmed(number, protected, planned=True)
        stored = session.commit(epochs, tracking.since)
    plan = Plan(
        target.facts, batch, number, parent.acknowledged or None, left_out(selected)
    )
    notes = _notes(epoch if complete else 0, stored=stored)
    return PlanResult(plan, session.before, look, look.cost + counted, notes)


def _notes(forgotten: int, *, stored: bool) -> tuple[str, ...]:
    """Return what to say about a plan.

    Args:
        forgotten: The named epoch, if the plan cannot build on it; otherwise 0.
        stored: Whether the session could store the plan.
    """
    notes = []
    if forgotten:
        notes.append(
            f"the pages written since epoch {forgotten} are no longer known:"
            " this plan is complete and builds on no image"
        )
    if not stored:
        notes.append("the session's directory is full: the next plan will be complete")
    return tuple(notes)


def acknowledge(pid: int | str | None, epoch: int) -> None:
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
    with open_session(find_session(pid), rearm=True) as session:
        epochs = _check(session, epoch)
        acknowledged = epochs.acknowledge(epoch)
        if acknowledged is epochs:  # the list was lost, or a later one is acknowledged
            session.commit_unchanged()
        else:
            session.commit(acknowledged, session.before.since)


def changed(
    pid: int | str | None, epoch: int | None = None, pace: Pace | None = None
) -> bool:
    """Whether anything was written since the acknowledged epoch, or else since arming.

    Args:
        pid: The target, by its pid or name; None: that of the only session.
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
    with open_session(find_session(pid), pace=pace) as session:
        if session.undelivered().starts:
            return True
        if session.before.planned:
            unsaved = session.epochs().unsaved
            if unsaved is None or unsaved.starts:
                return True
        elif session.before.since is None:  # a part was protected: unknown which
            return True
        return _has_untracked(session) or len(session.tracking.look().batch) > 0


def _check(session: OpenSession, image: int) -> Epochs:
    """Return the epochs of a session, if one of its plans is of that image.

    Raises:
        SessionError: No plan of that epoch was made; nothing is changed.
    """
    epochs = session.epochs()
    if image <= epochs.planned:
        return epochs
    session.commit_unchanged()
    name = session.before.name
    last = f"the last is {epochs.planned}" if epochs.planned else "it has no plan"
    raise SessionError(
        f"no plan of epoch {image} was made in session {name}: {last}",
        hint=f"pagescan dump-plan {name} --epoch 0 starts over",
        pid=session.target.pid,
    )


def _has_untracked(session: OpenSession) -> bool:
    """Whether any writable memory is untracked: a store to it would go unnoticed."""
    return any(
        item.start < mapping.end and mapping.start < item.end
        for mapping in mappings.read(session.target)
        for item in session.before.untracked
        if mapping.kind is not Kind.SPECIAL and mapping.perms[1] == "w"
    )


def _regions_of(untracked: Iterable[Untracked]) -> Columns:
    """Return untracked parts as regions: each plan dumps them."""
    return unlabelled(ranges_of((item.start, item.end) for item in untracked))


def dump_plan(pid: int | str, epoch: int | None = None) -> Plan:
    """Return the pages that a checkpoint has to store.

    Args:
        pid: The process, by its pid or name.
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
        with Target.open(pid_of(pid)) as target:
            return plan_now(target).plan
    return plan_epoch(pid, epoch).plan
