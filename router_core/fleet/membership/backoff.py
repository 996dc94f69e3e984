"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from random import Random

_FACTOR = 2.0


class Backoff:
    """Doubles from `initial_s` to `max_s`; each delay is cut by up to a half, so that routers do not come together.

    Args:
        random: Spreads the delays.
        initial_s: The first delay, at most.
        max_s: No delay is longer.
    """

    def __init__(self, random: Random, *, initial_s: float = 0.5, max_s: float = 30.0) -> None:
        self.max_s = max_s
        self._random = random
        self._initial_s = initial_s
        self._ceiling_s = initial_s

    def next_delay_s(self) -> float:
        """Return how long to wait now; the next answer is longer."""
        ceiling_s = self._ceiling_s
        self._ceiling_s = min(ceiling_s * _FACTOR, self.max_s)
        return ceiling_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the first delay: things work."""
        self._ceiling_s = self._initial_s
