"""The world as a running pool gives it to a plugin: `PoolContext` on real timers and real metrics."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due, as `asyncio.TimerHandle`."""

    def cancel(self) -> object:
        """Take it back."""


class Scheduler(Protocol):
    """Calls later, as an `asyncio` loop does."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call `callback` once, `delay` seconds from now."""


class MetricSink(Protocol):
    """Where one plugin's own metrics go; it is the sink that tells one pool's and plugin's from another's."""

    def count(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Record one observation of a histogram."""

    def counter(self, name: str, labels: dict[str, str]) -> Callable[[float], None]:
        """Return what adds to one counter."""

    def histogram(self, name: str, labels: dict[str, str]) -> Callable[[float], None]:
        """Return what records one histogram's observations."""


class LivePoolContext:
    """Implements `PoolContext` for one plugin of one pool; `stop` ends its timers.

    Attributes:
        call_timer: Calls what a timer is due to; whoever runs the plugin sets it, to isolate and count what goes wrong.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int | str | None,
        scheduler: Scheduler,
        sink: MetricSink,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the context; nothing is scheduled yet.

        Args:
            name: The pool's name.
            seed: Same seed, same choices; None for a seed of the system's.
            scheduler: Where timers run: the thread that also runs the plugin's hooks.
            sink: Where metrics go.
            now: Monotonic seconds.
        """
        self._name = name
        self._random = random.Random(seed)  # noqa: S311  # for choosing workers, not for secrets
        self._scheduler = scheduler
        self._sink = sink
        self._now = now
        self._timers: dict[int, Timer] = {}
        self._is_stopped = False
        self.call_timer: Callable[[Callable[[], None]], None] = lambda fn: fn()

    @property
    def name(self) -> str:
        """The pool's name, as in the config."""
        return self._name

    @property
    def random(self) -> random.Random:
        """A random source seeded by the config."""
        return self._random

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._now()

    def every(self, seconds: float, fn: Callable[[], None]) -> None:
        """Call `fn` every `seconds` until the pool stops.

        Raises:
            ValueError: If `seconds` is not above 0.
        """
        if not seconds > 0:
            raise ValueError(f"pool.every() needs seconds above 0, not {seconds!r}")
        number = len(self._timers)

        def tick() -> None:
            if self._is_stopped:
                return
            try:
                self.call_timer(fn)
            finally:
                if not self._is_stopped:
                    self._timers[number] = self._scheduler.call_later(seconds, tick)

        if not self._is_stopped:
            self._timers[number] = self._scheduler.call_later(seconds, tick)

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add `value` to a counter."""
        self._sink.count(name, value, labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._sink.gauge(name, value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record one observation of a histogram."""
        self._sink.observe(name, value, labels)

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return what adds to one counter."""
        return self._sink.counter(name, labels)

    def histogram(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return what records one histogram's observations."""
        return self._sink.histogram(name, labels)

    def stop(self) -> None:
        """End all timers; none fires afterwards."""
        self._is_stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
