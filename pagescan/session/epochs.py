"""The epochs of a session: which images its consumer has, and what they may lack; pure.

A session numbers its rearms: these numbers are its epochs. A plan of a checkpoint is a
rearm too, and its image has the plan's epoch. With each request the consumer names the
last image that it has stored: that epoch is acknowledged. Pages re-protected since are
remembered until a later epoch is acknowledged. So an unfinished image loses nothing:
its pages are in the next plan too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from pagescan.model.ranges import union
from pagescan.native import Columns

UNKNOWN = -1
"""Value of `acknowledged`: no consumer, or its unsaved pages are unknown."""


@dataclass(frozen=True, slots=True)
class Epochs:
    """The epochs of one session at one moment.

    Attributes:
        epoch: The number of rearms since arming.
        planned: The epoch of the last plan; 0: none was made.
        acknowledged: The epoch of the last image that the consumer has stored; 0: it
            has stored none; UNKNOWN.
        unsaved: Pages re-protected since, which that image may lack; None: unknown.
    """

    epoch: int
    planned: int = 0
    acknowledged: int = UNKNOWN
    unsaved: Columns | None = None

    def unsaved_since(self, image: int) -> Columns | None:
        """Return the pages that an image may lack; None: unknown.

        Args:
            image: The epoch of the image; 0: no image exists.
        """
        if not image or self.unsaved is None or image < self.acknowledged:
            return None
        # Nothing was re-protected between that plan and now.
        return Columns.empty() if image == self.epoch else self.unsaved

    def acknowledge(self, image: int) -> Self:
        """Return the epochs after an image was stored; unchanged if it is too old."""
        unsaved = self.unsaved_since(image)
        if unsaved is None:
            return self
        return replace(self, acknowledged=image, unsaved=unsaved)

    def next_plan(self, image: int) -> Self:
        """Return the epochs on which the next plan builds.

        Args:
            image: The image that the consumer has, which this acknowledges; 0: none.

        Returns:
            `acknowledged` is the parent of the plan, and `unsaved` what it has to store
            beside the pages of its look. If no image can be built on, both are empty.
        """
        unsaved = self.unsaved_since(image)
        if unsaved is None:
            return replace(self, acknowledged=0, unsaved=Columns.empty())
        return replace(self, acknowledged=image, unsaved=unsaved)

    def rearmed(self, epoch: int, protected: Columns, *, planned: bool = False) -> Self:
        """Return the epochs after pages were re-protected: no image may have them.

        Args:
            epoch: The new number of rearms.
            protected: The pages.
            planned: Whether the rearm was a plan.
        """
        last = epoch if planned else self.planned
        if self.unsaved is None:
            return replace(self, epoch=epoch, planned=last, acknowledged=UNKNOWN)
        unsaved = union(self.unsaved, protected)
        return replace(self, epoch=epoch, planned=last, unsaved=unsaved)

    def forgotten(self) -> Self:
        """Return the epochs after the unsaved pages were lost: no image can be used."""
        return replace(self, acknowledged=UNKNOWN, unsaved=None)
