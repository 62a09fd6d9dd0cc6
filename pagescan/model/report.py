"""A result without its rows, as a command hands it to the renderer."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pagescan.model.results import (
    Cost,
    Estimate,
    PlanFacts,
    PresentMemory,
    SessionFacts,
    Summary,
    TargetFacts,
)

if TYPE_CHECKING:
    from pagescan.model.groups import GroupFacts, MemberUntracked, ProcessFacts
    from pagescan.model.memory import Untracked

_NO_COST = Cost()


@dataclass(frozen=True, slots=True)
class Report:
    """A result without its rows; `kind` is the command's word for it."""

    kind: str
    time: datetime
    target: TargetFacts | None
    summary: Summary
    session: SessionFacts | None = None
    untracked: "tuple[Untracked | MemberUntracked, ...]" = ()
    cost: Cost = _NO_COST
    group: "GroupFacts | None" = None
    """The group, if several processes were looked at; `target` is None then."""
    processes: "tuple[ProcessFacts, ...]" = ()
    """The processes of a group."""
    gone: int | None = None
    """In watch of a group: how many processes have gone so far."""
    short_lived: int | None = None
    """In watch of a group: how many ended before any look; None: unknown."""
    tick: int | None = None
    """Number of the look, from 1, in watch; None elsewhere."""
    interval_ns: int | None = None
    """In watch: the time since the previous look, for which the summary holds."""
    end: str | None = None
    """In the last line of watch: interrupted count duration exited exec lost."""
    totals: Summary | None = None
    """In the last line of watch: all its looks together."""
    total_share: float | None = None
    """Beside the totals: `Cost.target_share` of all looks together."""
    total_ns: int | None = None
    """Beside the totals: `Cost.target_ns` of all looks together."""
    memory: PresentMemory | None = None
    """In JSON of watch: the present memory; None: it was not counted."""
    unseen_ns: int | None = None
    """In the last line of watch: how long before the target's end the last look was."""
    estimate: Estimate | None = None
    """With a budget; the rows then cover only the part that was tracked."""
    estimated: bool = False
    """Whether the totals of `watch` include an estimate."""
    plan: PlanFacts | None = None
    """In dump-plan: the bits of the rows are then actions, elsewhere categories."""
