"""What a policy gets of the world: the pool's clock, random source, timers and counters."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol


class PoolContext(Protocol):
    """Given to `on_start`. In the live router time is real, in the simulator virtual: a policy cannot tell."""

    @property
    def name(self) -> str:
        """The pool's name, as in the config."""

    @property
    def random(self) -> random.Random:
        """A random source seeded by the config: same seed, same choices."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def every(self, seconds: float, fn: Callable[[], None]) -> None:
        """Call `fn` every `seconds` (> 0) until the pool stops. One that raises counts as a fault, the rest go on."""

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add `value` (>= 0) to a counter. `name` in Prometheus form, without a prefix: `cache_hits_total`."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record one observation of a histogram; durations in seconds."""

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return what adds to one counter: `count` for labels that come again and again, at a fifth of its cost.

        The label `worker` ends a series with that worker: ask anew when one is added.
        """

    def histogram(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return what records one histogram's observations: `observe` for labels that come again and again."""
