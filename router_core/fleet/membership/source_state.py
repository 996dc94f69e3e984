"""What is known of a membership source from outside: is it running, when was it last heard of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from router_core.contract.membership import WorkerSpec


class SourceState(NamedTuple):
    """One source, now.

    Attributes:
        name: Tells it apart.
        is_running: False while it has failed and waits to be run again.
        age_s: Seconds since it last reported; None before its first report.
        failures: How often it failed.
        workers: How many workers its last list had.
        max_silence_s: After so many seconds without a report it sees its world no more; None if it may be silent.
    """

    name: str
    is_running: bool
    age_s: float | None
    failures: int
    workers: int
    max_silence_s: float | None

    @property
    def is_degraded(self) -> bool:
        """Whether its list may be out of date."""
        if not self.is_running or self.age_s is None:
            return True
        return self.max_silence_s is not None and self.age_s > self.max_silence_s


class SourceRecord:
    """Keeps the state of one source up to date.

    Attributes:
        is_running: See `SourceState`.
        failures: See `SourceState`.
        max_silence_s: See `SourceState`.
    """

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self.is_running = True
        self.failures = 0
        self.max_silence_s: float | None = None
        self._name = name
        self._now = now
        self._heard_at: float | None = None
        self._specs: tuple[WorkerSpec, ...] | None = None

    def heard(self, specs: tuple[WorkerSpec, ...]) -> bool:
        """It reported. Return False if this is the list it reported last, as a mere sign of life."""
        is_news = specs is not self._specs
        self._specs = specs
        self._heard_at = self._now()
        return is_news

    def state(self) -> SourceState:
        """Return what is known."""
        age_s = None if self._heard_at is None else self._now() - self._heard_at
        workers = len(self._specs or ())
        return SourceState(self._name, self.is_running, age_s, self.failures, workers, self.max_silence_s)
