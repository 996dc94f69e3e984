"""Run one policy as the router would, in virtual time and without a network.

    harness = PolicyHarness(MyPolicy(MyPolicy.Config()), workers=4)
    attempt = harness.select(make_request("Hello"))     # select, then reserve: the worker's load is already up
    attempt.first_token()
    attempt.complete()                                  # load is down again, on_request_complete was called

The harness hides nothing: where the live router falls back after a policy's fault, a test sees the fault.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from router_core.contract.request import Leg, OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import EngineTelemetry, Worker, WorkerRole, assign
from router_core.fleet.ledger import Lease, Ledger
from router_core.fleet.pool import WorkerPool
from router_core.testing.builders import FakePool, make_workers


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
        self._host = _DirectHost(policy)
        self._fleet = WorkerPool(self.pool.name)
        self._fleet.subscribe(self._host.worker_added, self._host.worker_removed)
        self._ledger = Ledger()
        self._open: dict[int, Attempt] = {}
        self._is_stopped = False
        _run(self._host.start(self.pool))
        for worker in make_workers(workers) if isinstance(workers, int) else workers:
            self.add_worker(worker)

    def __enter__(self) -> PolicyHarness:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the policy and then the pool's timers; a second call does nothing."""
        if not self._is_stopped:
            self._is_stopped = True
            _run(self._host.stop())
            self.pool.stop()

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
        return self._fleet.add(worker)

    def remove_worker(self, worker: Worker) -> None:
        """A worker leaves for good; its attempts run on."""
        self._fleet.remove(worker.url)

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
            PolicyFaultError: If it answers anything but a candidate or None.
        """
        candidates = self.candidates(role)
        if not candidates:
            return None
        chosen = self._host.select_single(candidates, request)
        if chosen is None:
            return None
        _require_candidate(chosen, candidates)
        return self._reserve(chosen, request, request.leg)

    def select_pair(self, request: RoutingRequest) -> tuple[Attempt, Attempt] | None:
        """Let the policy place a request on a prefill and a decode worker and reserve both.

        Raises:
            PolicyFaultError: If it answers anything but one candidate of each role, or None.
        """
        prefills, decodes = self.candidates(WorkerRole.PREFILL), self.candidates(WorkerRole.DECODE)
        if not prefills or not decodes:
            return None
        pair = self._host.select_pair(prefills, decodes, request)
        if pair is None:
            return None
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise PolicyFaultError(f"select_pair returned {pair!r}: return (prefill, decode) or None")
        _require_candidate(pair[0], prefills)
        _require_candidate(pair[1], decodes)
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
        self._host.first_token(attempt.worker, attempt.request)

    def _complete(self, attempt: Attempt, outcome: RequestOutcome) -> None:
        del self._open[id(attempt)]
        attempt._lease.release()
        self._host.request_complete(attempt.worker, attempt.request, outcome)


class _DirectHost:
    """Calls a policy's hooks by the parameters they name."""

    def __init__(self, policy: object) -> None:
        self._policy = policy

    def select_single(self, workers: tuple[Worker, ...], request: RoutingRequest) -> Any:
        return self._call("select_single", workers=workers, request=request)

    def select_pair(self, prefills: tuple[Worker, ...], decodes: tuple[Worker, ...], request: RoutingRequest) -> Any:
        if hasattr(self._policy, "select_pair"):
            return self._call("select_pair", prefill_workers=prefills, decode_workers=decodes, request=request)
        request.leg = Leg.PREFILL
        prefill = self.select_single(prefills, request)
        request.leg = Leg.DECODE
        decode = self.select_single(decodes, request)
        return None if prefill is None or decode is None else (prefill, decode)

    def first_token(self, worker: Worker, request: RoutingRequest) -> None:
        self._call("on_first_token", worker=worker, request=request)

    def request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        self._call(
            "on_request_complete",
            worker_url=worker.url,
            success=outcome.is_success,
            worker=worker,
            request=request,
            outcome=outcome,
        )

    def worker_added(self, worker: Worker) -> None:
        self._call("on_worker_added", worker=worker)

    def worker_removed(self, worker: Worker) -> None:
        self._call("on_worker_removed", worker=worker)

    async def start(self, pool: FakePool) -> None:
        result = self._call("on_start", pool=pool)
        if inspect.isawaitable(result):
            await result

    async def stop(self) -> None:
        result = self._call("on_stop")
        if inspect.isawaitable(result):
            await result

    def _call(self, hook: str, **arguments: Any) -> Any:
        method = getattr(self._policy, hook, None)
        if method is None:
            return None
        return method(**{name: arguments[name] for name in inspect.signature(method).parameters})


_LEGS = {WorkerRole.REGULAR: Leg.SINGLE, WorkerRole.PREFILL: Leg.PREFILL, WorkerRole.DECODE: Leg.DECODE}


def _require_candidate(chosen: object, candidates: Iterable[Worker]) -> None:
    if not any(chosen is candidate for candidate in candidates):
        raise PolicyFaultError(f"the policy chose {chosen!r}, which is none of the candidates it was given")


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(coroutine)
