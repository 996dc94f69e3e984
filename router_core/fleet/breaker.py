"""Circuit breakers: a worker that answers its health checks and fails its requests gets none for a while.

What a request's end says of its worker:

1. `error` and `timeout` are failures.
2. `success` is a success.
3. Connections that are lost together are one failure: an engine that dies ends all its requests, and one that is back
   before any check has seen it gone is well.
4. All else says nothing: `client_error` is the client's doing, `backpressure` a worker that is full, not broken, and
   `cancelled` was nobody's fault. But a worker that answers so `failure_threshold` times in a row, with nothing of ours
   running on it that it could be full of, is broken: quick refusals keep its load low and would draw all traffic to it.

A circuit is in one of three states:

1. Closed. The last `failure_threshold` failures open it if they all lie within `window_s` and make up at least
   `failure_share` of what ended on the worker since the first of them.
2. Open. The worker is no candidate. After `open_s` (five seconds at most if it only refused) it is half open.
3. Half open. One request at a time is let through: while it runs the worker is no candidate. So many successes as
   `success_threshold` close the circuit, one failure opens it; an end that says nothing lets the next one through.

When its health checks find a worker well that they had found dead, its circuit is closed: another process runs there.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import Circuit, Worker
from router_core.fleet.pool import WorkerPool

_log = logging.getLogger(__name__)
_BUSY_S = 1.0  # until a half-open worker may be free for the next request; nobody knows
_REFUSING_S = 5.0
_CRASH_S = 0.5  # within which what one crash ends is told
_FAILURES = frozenset({OutcomeStatus.ERROR, OutcomeStatus.TIMEOUT})
_BACKPRESSURE = OutcomeStatus.BACKPRESSURE


class Timer(Protocol):
    """Something that was put off."""

    def cancel(self) -> None:
        """Do not do it."""


class Scheduler(Protocol):
    """Puts things off; an event loop does."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back after so many seconds."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a circuit opens and closes; see the module's docstring.

    Attributes:
        is_on: Whether there are circuit breakers at all.
        failure_threshold: Failures that open a circuit.
        failure_share: The least share of what ended, 0 to 1, that they make up.
        window_s: The longest time between the first and the last of them.
        open_s: How long it stays open.
        success_threshold: Successes in a row that close it.
    """

    is_on: bool = True
    failure_threshold: int = 10
    failure_share: float = 0.5
    window_s: float = 120.0
    open_s: float = 60.0
    success_threshold: int = 3


class CircuitBreakers:
    """The circuits of one pool's workers.

    Attributes:
        half_open: Workers that are let one request at a time. Mostly empty: asked on every request.
        transitions: How often each worker's circuit went from one state to another, by url. `PROBING` is half open.
    """

    def __init__(
        self, pool: WorkerPool, rules: BreakerRules, *, scheduler: Scheduler, now: Callable[[], float]
    ) -> None:
        self.half_open: dict[Worker, _Trial] = {}
        self.transitions: dict[str, dict[tuple[Circuit, Circuit], int]] = {}
        self._pool = pool
        self._rules = rules
        self._scheduler = scheduler
        self._now = now
        self._failures: dict[Worker, deque[tuple[float, int]]] = {}  # when, and how many requests had ended by then
        self._crashes: dict[
            Worker, tuple[float, int]
        ] = {}  # when the last one was, and what they ended beside one each
        self._refusals: dict[Worker, tuple[int, int]] = {}  # in a row, and how many requests had ended by the last
        self._open: dict[Worker, tuple[float, Timer]] = {}  # until when
        pool.subscribe(on_removed=self.forget)

    def placed(self, worker: Worker, attempt: object) -> None:
        """A request was placed; on a half-open worker it is the one that is let through now."""
        trial = self.half_open.get(worker)
        if trial is None:
            return
        trial.attempt = attempt
        self._pool.set_circuit(worker, Circuit.PROBING)

    def ended(self, worker: Worker, attempt: object, status: OutcomeStatus, *, lost_since: float | None = None) -> None:
        """An attempt ended. Needed for all that failed, and for all on half-open workers.

        Args:
            worker: Who served it; its reservation is released already.
            attempt: As in `placed`.
            status: How it ended.
            lost_since: If its connection was lost: when it had been placed.
        """
        trial = self.half_open.get(worker)
        if trial is not None:
            self._tried(worker, trial, attempt, status)
        elif worker in self._open or self._pool.get(worker.url) is not worker:
            return
        elif status in _FAILURES:
            if lost_since is None or not self._is_of_a_crash(worker, lost_since):
                self._failed(worker)
        elif status is _BACKPRESSURE:
            self._refused(worker)

    def recovered(self, worker: Worker) -> None:
        """Health checks find a worker well that they had found dead: what it did before counts no more."""
        self._failures.pop(worker, None)
        before = Circuit.OPEN if worker in self._open else Circuit.HALF_OPEN
        if worker in self._open:
            self._open.pop(worker)[1].cancel()
        elif self.half_open.pop(worker, None) is None:
            return
        _log.info("worker %s: circuit closed, its health checks find it well again", worker.url)
        self._go(worker, before, Circuit.CLOSED)

    def retry_after_s(self, workers: Iterable[Worker]) -> float | None:
        """Return in how many seconds the next of the open circuits lets a request through; None if none is open."""
        if not self._open and not self.half_open:
            return None
        waits = [_BUSY_S if worker in self.half_open else self._left_s(worker) for worker in workers]
        return min(filter(None, waits), default=None)

    def forget(self, worker: Worker) -> None:
        """A worker left."""
        self._failures.pop(worker, None)
        self._refusals.pop(worker, None)
        self._crashes.pop(worker, None)
        self.half_open.pop(worker, None)
        self.transitions.pop(worker.url, None)
        if worker in self._open:
            self._open.pop(worker)[1].cancel()
        self._pool.set_circuit(worker, Circuit.CLOSED)  # it may come back

    def _left_s(self, worker: Worker) -> float | None:
        return max(_BUSY_S, self._open[worker][0] - self._now()) if worker in self._open else None

    def close(self) -> None:
        """End all timers."""
        for _, timer in self._open.values():
            timer.cancel()

    def _is_of_a_crash(self, worker: Worker, since: float) -> bool:
        """Return whether a lost connection says no more than another that was lost just now."""
        now = self._now()
        crash_at, others = self._crashes.get(worker, (-math.inf, 0))
        is_same = since <= crash_at and now - crash_at <= _CRASH_S
        self._crashes[worker] = (crash_at, others + 1) if is_same else (now, others)
        return is_same

    def _failed(self, worker: Worker) -> None:
        rules, now = self._rules, self._now()
        if not rules.is_on:
            return
        failures = self._failures.get(worker)
        if failures is None:
            failures = self._failures[worker] = deque(maxlen=rules.failure_threshold)
        all_ended = worker.requests_processed - self._crashes.get(worker, (0.0, 0))[1]
        failures.append((now, all_ended))
        first_at, first_ended = failures[0]
        if len(failures) < rules.failure_threshold or now - first_at > rules.window_s:
            return
        ended = all_ended - first_ended + 1
        if len(failures) >= rules.failure_share * ended:
            _log.warning(
                "worker %s: circuit opened for %g s, %d of its last %d requests failed",
                worker.url,
                rules.open_s,
                len(failures),
                ended,
            )
            self._open_circuit(worker, Circuit.CLOSED, rules.open_s)

    def _refused(self, worker: Worker) -> None:
        rules, ended = self._rules, worker.requests_processed
        if not rules.is_on:
            return
        count, ended_before = self._refusals.get(worker, (0, 0))
        count = count + 1 if ended == ended_before + 1 else 1
        self._refusals[worker] = count, ended
        if count >= rules.failure_threshold and not worker.decode_tokens:
            open_s = min(_REFUSING_S, rules.open_s)
            message = "worker %s: circuit opened for %g s, it refused its last %d requests with nothing to be full of"
            _log.warning(message, worker.url, open_s, count)
            self._open_circuit(worker, Circuit.CLOSED, open_s)

    def _tried(self, worker: Worker, trial: _Trial, attempt: object, status: OutcomeStatus) -> None:
        if trial.attempt is not attempt:
            return  # It was placed before the circuit opened and says nothing of the worker as it is now.
        trial.attempt = None
        if status in _FAILURES:
            _log.warning("worker %s: circuit opened again, the request let through failed", worker.url)
            del self.half_open[worker]
            self._open_circuit(worker, Circuit.HALF_OPEN, self._rules.open_s)
            return
        if status is OutcomeStatus.SUCCESS:
            trial.successes += 1
        if trial.successes >= self._rules.success_threshold:
            _log.info("worker %s: circuit closed", worker.url)
            del self.half_open[worker]
            self._go(worker, Circuit.HALF_OPEN, Circuit.CLOSED)
        else:
            self._pool.set_circuit(worker, Circuit.HALF_OPEN)

    def _open_circuit(self, worker: Worker, before: Circuit, open_s: float) -> None:
        self._failures.pop(worker, None)
        self._refusals.pop(worker, None)
        timer = self._scheduler.call_later(open_s, lambda: self._half_open(worker))
        self._open[worker] = self._now() + open_s, timer
        self._go(worker, before, Circuit.OPEN)

    def _half_open(self, worker: Worker) -> None:
        self._open.pop(worker)[1].cancel()
        self.half_open[worker] = _Trial()
        self._go(worker, Circuit.OPEN, Circuit.HALF_OPEN)

    def _go(self, worker: Worker, before: Circuit, after: Circuit) -> None:
        counts = self.transitions.setdefault(worker.url, {})
        counts[before, after] = counts.get((before, after), 0) + 1
        self._pool.set_circuit(worker, after)


class _Trial:
    """What a half-open worker is put through."""

    __slots__ = ("attempt", "successes")

    def __init__(self) -> None:
        self.attempt: object | None = None  # the one that is let through
        self.successes = 0
