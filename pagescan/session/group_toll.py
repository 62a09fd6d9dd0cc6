"""The cost of tracking to all members of a group together."""

from collections.abc import Sequence

from pagescan.session.watched import Terms
from pagescan.tracking.fault_cost import USUAL, FaultCost, Trial
from pagescan.tracking.target_cost import TargetCost

_WORTH_A_TRIAL = 0.005  # of the members' processor time


class GroupToll:
    """The cost of tracking to all members together; it measures one write for all.

    Attributes:
        fault: The cost of one first write: measured, or the usual figure.
        gone: The costs of members that have gone since the last `add`.
    """

    def __init__(self, terms: Terms) -> None:
        """Begin with the usual cost of a write."""
        self.fault = FaultCost(USUAL, "it matters too little")
        self.gone: list[TargetCost] = []
        self._terms = terms
        self._trial: Trial | None = None
        self._measured = False
        self._seen: dict[int, tuple[float, float]] = {}
        self._used = self._spent = 0.0

    @property
    def share(self) -> float | None:
        """The share of their processor time over all looks; None: they used no time."""
        return min(1.0, self._spent / self._used) if self._used > 0 else None

    @property
    def spent_ns(self) -> int | None:
        """The same as processor time, in nanoseconds."""
        return None if self.share is None else round(self._spent * 1e9)

    def add(self, tolls: Sequence[TargetCost]) -> float | None:
        """Add the time that members used since the last call; return the share."""
        used = spent = 0.0
        seen = {}
        gone, self.gone = self.gone, []
        for toll in (*tolls, *gone):
            before = self._seen.get(id(toll), (0.0, 0.0))
            used += toll.used - before[0]
            spent += toll.spent - before[1]
            seen[id(toll)] = toll.used, toll.spent
        self._seen = {id(toll): seen[id(toll)] for toll in tolls}
        self._used += used
        self._spent += spent
        if used <= 0:
            return None
        self._measure(spent / used, tolls)
        return min(1.0, spent / used)

    def _measure(self, share: float, tolls: Sequence[TargetCost]) -> None:
        """Measure the cost of a write, as soon as it matters, for all members."""
        if self._measured:
            return
        if self._trial is None:
            self._trial = Trial() if share >= _WORTH_A_TRIAL else None
        elif (result := self._trial.poll()) is not None:
            self.fault, self._measured = result, True
            for toll in tolls:
                toll.fault = result
            self.close()
            self._terms.detail(str(result))

    def close(self) -> None:
        """End a running trial."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
