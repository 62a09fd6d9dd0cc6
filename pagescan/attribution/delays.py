"""Delays until the samples of a moment have been counted."""

PUMPS_UNTIL_SURE = 2
"""Samples that a ring had at one `pump` are counted by the second one after it."""


class Delay:
    """Numbers that wait until the samples of before have been counted."""

    def __init__(self) -> None:
        """Begin with no number."""
        self._left: dict[int, int] = {}

    def begin(self, number: int) -> None:
        """Let a number wait from now on."""
        self._left[number] = PUMPS_UNTIL_SURE

    def cancel(self, number: int) -> bool:
        """Let a number wait no more; return whether it did."""
        return self._left.pop(number, None) is not None

    def __bool__(self) -> bool:
        return bool(self._left)

    def __contains__(self, number: int) -> bool:
        return number in self._left

    def due(self) -> list[int]:
        """Return the numbers that have waited enough; call it once per `pump`."""
        found = [number for number, pumps in self._left.items() if not pumps]
        self._left = {
            number: pumps - 1 for number, pumps in self._left.items() if pumps
        }
        return found
