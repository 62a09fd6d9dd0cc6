"""The account of a budget: the target's use and loss of processor time; no I/O."""

# The cost of one write is an estimate: redis lost 1.7 %, with a standard error of 0.6,
# while the estimate was 0.9 %.
_AIM = 0.5
_KEPT = 0.9  # weight of earlier looks, at each look
_LEAST = 0.1  # of the budget: enough to track something while a debt is paid


class Ledger:
    """How much processor time a target may lose until the next look.

    Recent looks count more than older ones. The next looks pay back a look that cost
    too much; an unspent allowance is not saved.

    Attributes:
        share: The budget, 0 to 1, of the processor time that the target uses.
    """

    def __init__(self, share: float) -> None:
        """Begin without debts."""
        self.share = share * _AIM
        self._totals = (0.0, 0.0)
        self._used = self._spent = self._last = 0.0

    def take(self, used: float, spent: float) -> None:
        """Take the totals so far: the seconds that it used, and lost to tracking."""
        before, self._totals = self._totals, (used, spent)
        self._last = used - before[0]
        self._used = self._used * _KEPT + self._last
        self._spent = self._spent * _KEPT + spent - before[1]

    def allowance(self) -> float:
        """Return the seconds that it may lose, if it uses as much as last time."""
        budget = self.share * self._last
        due = self.share * (self._used + self._last) - self._spent
        return max(budget * _LEAST, min(budget, due))
