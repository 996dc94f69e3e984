"""How long a policy takes to decide. Noted once a selection, so kept in plain numbers."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
"""Upper bounds of the buckets, in seconds; one more takes what is longer."""


class DecisionTimes:
    """Selections counted by what they took.

    Attributes:
        seconds: What all of them took together.
    """

    __slots__ = ("_counts", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def note(self, took_s: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS, took_s)] += 1
        self.seconds += took_s

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    @property
    def buckets(self) -> tuple[tuple[float, int], ...]:
        """Each bucket's upper bound, the last infinite, and how many are in it."""
        return tuple(zip((*BOUNDS, float("inf")), self._counts, strict=True))

    def __add__(self, other: DecisionTimes) -> DecisionTimes:
        """Return those of both."""
        both = DecisionTimes()
        both.seconds = self.seconds + other.seconds
        both._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        return both
