"""Presentation times of frames, in seconds from the moment at which the first frame is shown."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

INSTANT = 1e-6
"""Seconds by which times may differ and be the same: 0.3 is a little less than 3/10."""


class Times(Protocol):
    """When the frames of a video are shown, in seconds from the moment the first one is."""

    @property
    def rate(self) -> Fraction | float | None:
        """Frames per second on average, if that is known."""

    def begun_before(self, seconds: float) -> int:
        """Return how many frames are first shown before a time within the video."""

    def duration(self, length: int) -> float:
        """Return for how long the first ``length`` frames are shown."""

    def starts(self, length: int) -> Tensor:
        """Return when each of the first ``length`` frames is first shown, float64 (length,)."""


@dataclass(frozen=True)
class EvenTimes:
    """Frames at a constant rate.

    Attributes:
        rate: Frames per second.
    """

    rate: float

    def begun_before(self, seconds: float) -> int:
        """Return how many frames are first shown before a time."""
        return math.ceil(seconds * self.rate)

    def duration(self, length: int) -> float:
        """Return for how long ``length`` frames are shown."""
        return length / self.rate

    def starts(self, length: int) -> Tensor:
        """Return when each of ``length`` frames is first shown, float64 (length,)."""
        return torch.arange(length, dtype=torch.float64) / self.rate


@dataclass(frozen=True)
class StampTimes:
    """When frames are shown, by their time stamps.

    Attributes:
        stamps: Time stamp of every frame shown, ascending and distinct.
        time_base: The unit of time stamps, in seconds.
        declared_rate: Frames per second as the file declares them.
    """

    stamps: list[int]
    time_base: Fraction
    declared_rate: Fraction | None

    def begun_before(self, seconds: float) -> int:
        """Return how many frames are first shown before a time, counted from the first one's."""
        return bisect_left(self.stamps, self.stamps[0] + seconds / self.time_base)

    def duration(self, length: int) -> float:
        """Return for how many seconds the first ``length`` frames are shown.

        The last of them counts for as long as frames last on average.
        """
        shown = (self.stamps[length - 1] - self.stamps[0]) * self.time_base
        return float(shown + (1 / self.rate if self.rate else 0))

    def starts(self, length: int) -> Tensor:
        """Return when each of the first ``length`` frames is first shown, float64 (length,)."""
        units = [stamp - self.stamps[0] for stamp in self.stamps[:length]]
        # whole numbers up to the division: the quotient is the nearest float64
        whole = torch.tensor(units, dtype=torch.int64) * self.time_base.numerator
        return whole.double() / self.time_base.denominator

    @property
    def rate(self) -> Fraction | None:
        """Frames per second over the whole video, or what is declared for a single frame."""
        if len(self.stamps) == 1:
            return self.declared_rate
        return (len(self.stamps) - 1) / ((self.stamps[-1] - self.stamps[0]) * self.time_base)
