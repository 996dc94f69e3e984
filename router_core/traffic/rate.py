"""A rate that is kept over time."""

from __future__ import annotations

_TOLERANCE = 1e-9


class RateLimit:
    """A token bucket that holds one second's worth, and at least one.

    What costs more than the bucket holds waits until it is full and overdraws it: the rate then holds on the average,
    and nothing is too large to ever pass. Nothing is given back.

    Args:
        rate: What may be taken in a second.
        now: Monotonic seconds.
    """

    __slots__ = ("_capacity", "_level", "_rate", "_updated")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._capacity = self._level = max(rate, 1.0)
        self._updated = now

    @classmethod
    def renewed(cls, present: RateLimit | None, rate: float | None, now: float) -> RateLimit | None:
        """Return what keeps this rate, None for none; a limit of the same rate stays, with all that was taken of it."""
        if rate is None:
            return None
        return present if present is not None and present._rate == rate else cls(rate, now)

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken; 0 if it may be now."""
        self._level = min(self._capacity, self._level + (now - self._updated) * self._rate)
        self._updated = now
        missing = min(amount, self._capacity) - self._level
        return missing / self._rate if missing > _TOLERANCE else 0.0

    def take(self, amount: float) -> None:
        """Take what `wait_s` has just allowed."""
        self._level -= amount
