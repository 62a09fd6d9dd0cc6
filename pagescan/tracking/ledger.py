"""The account of a budget: what a target used, and what that cost it; no I/O."""

# What one write costs is an estimate: redis lost 1.7 %, with a standard error of 0.6,
# where 0.9 % were said.
_AIM = 0.5
_KEPT = 0.9  # of what the looks before say, at each look
_LEAST = 0.1  # of the budget: a debt is paid back, and something is tracked meanwhile


class Ledger:
    """How much of its processor time a target may lose until the next look.

    Recent looks count, older ones less and less. A look that cost too much is paid
    back by the next ones; what was not spent is not saved up.

    Attributes:
        share: The budget, 0 to 1, of the processor time that the target uses.
    """

    def __init__(self, share: float) -> None:
        """Begin without debts."""
        self.share = share * _AIM
        self._totals = (0.0, 0.0)
        self._used = self._spent = self._last = 0.0

    def take(self, used: float, spent: float) -> None:
        """Take in the totals so far: seconds that it used, and lost by tracking."""
        before, self._totals = self._totals, (used, spent)
        self._last = used - before[0]
        self._used = self._used * _KEPT + self._last
        self._spent = self._spent * _KEPT + spent - before[1]

    def allowance(self) -> float:
        """Return the seconds that it may lose, if it uses as many as last time."""
        budget = self.share * self._last
        due = self.share * (self._used + self._last) - self._spent
        return max(budget * _LEAST, min(budget, due))
