"""Run one policy as the router would, in virtual time and without a network.

    harness = PolicyHarness(MyPolicy(MyPolicy.Config()), workers=4)
    attempt = harness.select(make_request("Hello"))     # select, then reserve: the worker's load is already up
    attempt.first_token()
    attempt.complete()                                  # load is down again, on_request_complete was called

The harness hides nothing: where the live router falls back after a policy's fault, a test sees the fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from router_core.contract.request import Leg, OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import EngineTelemetry, Worker, WorkerRole, assign
from router_core.fleet.ledger import Lease, Ledger
from router_core.fleet.pool import WorkerPool
from router_core.plugin_host.faults import FaultLimits
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.watchdog import Running, Watchdog
from router_core.testing.builders import FakePool, make_workers

_HOST_LOGGER = logging.getLogger("router_core.plugin_host")


class PolicyFaultError(AssertionError):
    """The policy broke the contract in a way the router would have to guard against."""


class Attempt:
    """One reservation on one worker; ends with exactly one `complete`.

    Attributes:
        worker: Who was chosen.
        request: What was placed.
        leg: Single, or which leg of a pair this is.
    """

    __slots__ = ("worker", "request", "leg", "_harness", "_lease", "_started_at", "_ttft_s", "_is_open")

    def __init__(self, harness: PolicyHarness, lease: Lease, request: RoutingRequest, leg: Leg) -> None:
        self.worker = lease.worker
        self.request = request
        self.leg = leg
        self._harness = harness
        self._lease = lease
        self._started_at = harness.pool.now()
        self._ttft_s: float | None = None
        self._is_open = True

    def first_token(self) -> None:
        """The first bytes of the answer arrive: prefill is over."""
        if not self._is_open or self._ttft_s is not None:
            raise RuntimeError(f"{self!r}: a first token comes at most once, and before the end")
        self._ttft_s = self._harness.pool.now() - self._started_at
        self._harness._first_token(self)

    def complete(self, status: OutcomeStatus = OutcomeStatus.SUCCESS, **figures: Any) -> None:
        """The attempt ends.

        Args:
            status: How.
            **figures: Further fields of `RequestOutcome`, such as `cached_tokens=512`.
        """
        if not self._is_open:
            raise RuntimeError(f"{self!r}: already complete")
        self._is_open = False
        outcome = RequestOutcome(
            status,
            **{
                "duration_s": self._harness.pool.now() - self._started_at,
                "ttft_s": self._ttft_s,
                "attempt": self.request.attempt,
                "leg": self.leg,
                **figures,
            },
        )
        self._harness._complete(self, outcome)

    def __repr__(self) -> str:
        return f"Attempt({self.request.id!r}, {self.leg.value} on {self.worker.url!r})"


class PolicyHarness:
    """One pool with one policy in it, started. Stop it, or use it in `with`.

    Attributes:
        policy: The policy instance.
        pool: Its world: `harness.pool.advance(seconds)` lets time pass.
        in_flight: Attempts that have not ended, oldest first.
    """

    def __init__(self, policy: object, workers: Sequence[Worker] | int = 4, *, seed: int = 0) -> None:
        self.policy = policy
        self.pool = FakePool(seed=seed)
        members = make_workers(workers) if isinstance(workers, int) else tuple(workers)
        self._manager = PolicyManager(
            policy,
            name=type(policy).__name__,
            fallback="fail",
            limits=FaultLimits(quarantine_after=0),
            needs_pair=any(worker.role is not WorkerRole.REGULAR for worker in members),
            watchdog=_Unwatched(),
            clock=self.pool.now,
        )
        self._witness = _Witness()
        self._seen_faults = 0
        self._fleet = WorkerPool(self.pool.name)
        self._fleet.subscribe(self._manager.worker_added, self._manager.worker_removed)
        self._ledger = Ledger()
        self._open: dict[int, Attempt] = {}
        self._is_stopped = False
        _HOST_LOGGER.addHandler(self._witness)
        try:
            _run(self._manager.start(lambda _: self.pool))
            for worker in members:
                self.add_worker(worker)
        except BaseException:
            _HOST_LOGGER.removeHandler(self._witness)
            raise

    def __enter__(self) -> PolicyHarness:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the policy and then the pool's timers; a second call does nothing."""
        if not self._is_stopped:
            self._is_stopped = True
            try:
                _run(self._manager.stop())
                self._raise_fault()
            finally:
                _HOST_LOGGER.removeHandler(self._witness)

    # --- the fleet ---

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The members, healthy or not, in the order they joined."""
        return self._fleet.workers

    @property
    def in_flight(self) -> tuple[Attempt, ...]:
        """Attempts that have not ended, oldest first."""
        return tuple(self._open.values())

    def candidates(self, role: WorkerRole = WorkerRole.REGULAR) -> tuple[Worker, ...]:
        """Return the healthy members of one role: the very tuple a select hook is given."""
        return self._fleet.candidates(role)

    def add_worker(self, worker: Worker) -> Worker:
        """A worker joins. An address that left with requests still running returns as the worker it was."""
        member = self._fleet.add(worker)
        self._raise_fault()
        return member

    def remove_worker(self, worker: Worker) -> None:
        """A worker leaves for good; its attempts run on."""
        self._fleet.remove(worker.url)
        self._raise_fault()

    def set_health(self, worker: Worker, *, healthy: bool) -> None:
        """A worker's health changes; it stays a member."""
        self._fleet.set_health(worker, healthy)

    def set_engine(self, worker: Worker, engine: EngineTelemetry | None) -> None:
        """A worker's telemetry was polled, or is lost."""
        assign(worker, engine=engine)

    # --- requests ---

    def select(self, request: RoutingRequest, role: WorkerRole = WorkerRole.REGULAR) -> Attempt | None:
        """Let the policy place a request on one worker and reserve it; None when it finds none suitable.

        Raises:
            PolicyFaultError: If it answers anything but a candidate or None. What it raises itself comes through.
        """
        candidates = self.candidates(role)
        if not candidates:
            return None
        chosen = self._manager.select_single(candidates, request)
        self._raise_fault()
        return None if chosen is None else self._reserve(chosen, request, request.leg)

    def select_pair(self, request: RoutingRequest) -> tuple[Attempt, Attempt] | None:
        """Let the policy place a request on a prefill and a decode worker and reserve both.

        Raises:
            PolicyFaultError: If it answers anything but one candidate of each role, or None.
        """
        prefills, decodes = self.candidates(WorkerRole.PREFILL), self.candidates(WorkerRole.DECODE)
        if not prefills or not decodes:
            return None
        pair = self._manager.select_pair(prefills, decodes, request)
        self._raise_fault()
        if pair is None:
            return None
        return self._reserve(pair[0], request, Leg.PREFILL), self._reserve(pair[1], request, Leg.DECODE)

    def send(self, request: RoutingRequest) -> tuple[Attempt, ...]:
        """Place a request as this pool's roles ask for: on a regular worker, on a pair, or on the only leg there is.

        Returns:
            One attempt, two for a pair, none when no worker was suitable.
        """
        # 1. A pair.
        if self.candidates(WorkerRole.PREFILL) and self.candidates(WorkerRole.DECODE):
            return self.select_pair(request) or ()
        # 2. Regular workers, or one leg alone.
        for role, leg in _LEGS.items():
            if self.candidates(role):
                request.leg = leg
                attempt = self.select(request, role)
                return () if attempt is None else (attempt,)
        return ()

    def serve(self, request: RoutingRequest, status: OutcomeStatus = OutcomeStatus.SUCCESS) -> tuple[Worker, ...]:
        """Send a request, let it run to its end at once, and return who served it."""
        attempts = self.send(request)
        for attempt in attempts:
            attempt.first_token()
            attempt.complete(status)
        return tuple(attempt.worker for attempt in attempts)

    # --- the core's part ---

    def _reserve(self, worker: Worker, request: RoutingRequest, leg: Leg) -> Attempt:
        attempt = Attempt(self, self._ledger.reserve(worker, request), request, leg)
        self._open[id(attempt)] = attempt
        return attempt

    def _first_token(self, attempt: Attempt) -> None:
        attempt._lease.first_token()
        self._manager.first_token(attempt.worker, attempt.request)
        self._raise_fault()

    def _complete(self, attempt: Attempt, outcome: RequestOutcome) -> None:
        del self._open[id(attempt)]
        attempt._lease.release()
        self._manager.request_complete(attempt.worker, attempt.request, outcome)
        self._raise_fault()

    def _raise_fault(self) -> None:
        """Raise what the plugin host has just borne with: the policy's own error, or what was wrong with its answer."""
        faults = self._manager.faults
        if not faults or (count := sum(faults.values())) == self._seen_faults:
            return
        self._seen_faults = count
        error, self._witness.error = self._witness.error, None
        raise PolicyFaultError(self._witness.sentence) if error is None else error


class _Unwatched(Watchdog):
    """Watches nothing: a test that hangs is its runner's business."""

    def watch(self, plugins: Iterable[Running]) -> None:
        """Do nothing."""

    def release(self, plugins: Iterable[Running]) -> None:
        """Do nothing."""


class _Witness(logging.Handler):
    """Keeps the latest fault the plugin host logged, since the host itself goes on as if nothing had happened."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.sentence = ""
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.sentence = record.getMessage()
        self.error = record.exc_info[1] if record.exc_info else None


_LEGS = {WorkerRole.REGULAR: Leg.SINGLE, WorkerRole.PREFILL: Leg.PREFILL, WorkerRole.DECODE: Leg.DECODE}


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(coroutine)
