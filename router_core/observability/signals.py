"""Are the signals that decisions rest on alive? Asked every few seconds; a change is one line in the log.

A signal is degraded when the router goes on without it, or on something old: nothing fails then, requests are just
placed worse. That is why it has to be loud.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from router_core.observability.exposition import Sample
from router_core.observability.families import MetricKind
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import Freshness, ManagedPolicy, SourceState

log = logging.getLogger(__name__)

_CHECK_S = 5.0


class Signal(NamedTuple):
    """The state of one signal.

    Attributes:
        signal: Which kind: `membership`, `telemetry`, `cache_prediction`, `policy` or `settings`.
        subject: Whose: a pool's or a source's name, or `router`.
        is_degraded: Whether it cannot be relied upon.
        detail: Why, or what is known; one clause.
    """

    signal: str
    subject: str
    is_degraded: bool
    detail: str


Check = Callable[[], Iterable[Signal]]


class SignalBoard:
    """Asks all checks, remembers the answers and logs what changed."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self._signals: tuple[Signal, ...] = ()
        self._degraded: set[tuple[str, str]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, check: Check) -> None:
        """Ask this one too."""
        self._checks.append(check)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look now and go on looking, every few seconds."""
        self.look()
        self._timer = loop.call_later(_CHECK_S, self.start, loop)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> tuple[Signal, ...]:
        """Ask all checks; log each signal that went down or came back. Return the states."""
        signals: list[Signal] = []
        for check in self._checks:
            try:
                signals += check()
            except Exception:  # a check that fails must not hide the others
                log.exception("a check of signals failed: %r", check)
        self._signals = tuple(signals)
        degraded = {(each.signal, each.subject) for each in signals if each.is_degraded}
        for each in signals:
            key = each.signal, each.subject
            if each.is_degraded and key not in self._degraded:
                log.error("degraded: %s of %s: %s", each.signal, each.subject, each.detail)
            elif not each.is_degraded and key in self._degraded:
                log.warning("recovered: %s of %s: %s", each.signal, each.subject, each.detail)
        self._degraded = degraded
        return self._signals

    def sample(self) -> Iterator[Sample]:
        """Yield a gauge for each signal, as it was when last looked at."""
        text = "1 while a signal that decisions rest on is missing or wrong."
        for each in self._signals:
            labels = {"signal": each.signal, "subject": each.subject}
            yield Sample("signal_degraded", MetricKind.GAUGE, text, labels, int(each.is_degraded))


def watch_pools(
    board: SignalBoard, registry: MetricsRegistry, policies: Mapping[str, Callable[[], ManagedPolicy]]
) -> None:
    """Have a board watch the policies of all pools and what they predict, and expose it.

    Args:
        board: Asks and remembers.
        registry: Where predictions are counted, and where the board's gauges go.
        policies: By the pool's name, what returns its policy's manager.
    """
    registry.add_sampler(board.sample)
    for pool, policy in policies.items():
        board.add(policy_check(pool, policy))
        board.add(CachePredictionCheck(registry, pool, time.monotonic))


class Totals(Protocol):
    """Where counters can be read; `MetricsRegistry` is one."""

    def total(self, name: str, labels: Mapping[str, str]) -> float:
        """Return the sum of a counter's series with these labels."""


class CachePredictionCheck:
    """Compares what a pool's policy expects in the workers' caches with what the engines report.

    Over the last five minutes: degraded when the engines found less than half of what was predicted. A policy whose
    picture of the caches has died predicts on, and nothing else would show it.

    Args:
        totals: Where both are counted.
        pool: The pool's name.
        now: Monotonic seconds.
    """

    def __init__(self, totals: Totals, pool: str, now: Callable[[], float]) -> None:
        self._totals = totals
        self._pool = pool
        self._now = now
        self._history: deque[tuple[float, float, float]] = deque()

    def __call__(self) -> Iterator[Signal]:
        """Yield the state, once anything has been predicted and reported."""
        labels, now = {"pool": self._pool}, self._now()
        predicted = self._totals.total("cache_check_predicted_tokens_total", labels)
        reported = self._totals.total("cache_check_reported_tokens_total", labels)
        if not predicted:
            return
        history = self._history
        if not history:
            history.append((now - _CHECK_S, 0.0, 0.0))
        history.append((now, predicted, reported))
        while history[1][0] <= now - _WINDOW_S:
            history.popleft()
        expected, found = predicted - history[0][1], reported - history[0][2]
        is_degraded = expected >= _ENOUGH_TOKENS and found < _LEAST_SHARE * expected
        detail = f"engines found {found:.0f} of {expected:.0f} prompt tokens expected in their caches"
        yield Signal("cache_prediction", self._pool, is_degraded, detail)


_WINDOW_S = 300.0
_ENOUGH_TOKENS = 5_000
_LEAST_SHARE = 0.5


def policy_check(pool: str, policy: Callable[[], ManagedPolicy]) -> Check:
    """Return a check of whether a pool's policy decides."""

    def check() -> Iterator[Signal]:
        present = policy()
        detail = "quarantined after faults: the fallback decides" if present.is_quarantined else "it decides"
        yield Signal("policy", pool, present.is_quarantined, f"{present.name}: {detail}")

    return check


def telemetry_check(pool: str, freshness: Callable[[], Mapping[str, Freshness]]) -> Check:
    """Return a check of whether the engines tell their load; three questions without an answer are too many."""

    def check() -> Iterator[Signal]:
        found = freshness()
        silent = sorted(url for url, fresh in found.items() if fresh.failures >= _MAX_FAILURES)
        names = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
        detail = f"{len(silent)} of {len(found)} workers do not tell their load" + (f": {names}" if silent else "")
        yield Signal("telemetry", pool, bool(silent), detail)

    return check


_MAX_FAILURES = 3


def settings_check(why_stale: Callable[[], str]) -> Check:
    """Return a check of whether the router runs with the settings as they are written now, as far as it has read them.

    Args:
        why_stale: Returns why it does not; empty if it does.
    """

    def check() -> Iterator[Signal]:
        why = why_stale()
        yield Signal("settings", "router", bool(why), why or "all that were read are in use")

    return check


def membership_check(states: Callable[[], Iterable[SourceState]]) -> Check:
    """Return a check of whether the membership sources see their worlds."""

    def check() -> Iterator[Signal]:
        for state in states():
            if not state.is_running:
                detail = "it failed and is run again after a while; its last list stays"
            elif state.age_s is None:
                detail = "it has not reported yet"
            else:
                detail = f"last heard of {state.age_s:.0f} s ago"
            yield Signal("membership", state.name, state.is_degraded, detail)

    return check
