"""Probes: is the router alive, and can it serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import orjson
from aiohttp import web

from router_core.contract.worker import Circuit, Worker, WorkerRole


class ProbedPool(Protocol):
    """What of a pool the control plane reads."""

    @property
    def name(self) -> str:
        """The pool's name, as in the config."""

    @property
    def workers(self) -> Sequence[Worker]:
        """The present members."""

    @property
    def serves_pairs(self) -> bool:
        """Whether requests go to a prefill and a decode worker each; else to a regular one."""


class PolicyStatus(Protocol):
    """What a policy's manager tells of it."""

    @property
    def name(self) -> str:
        """The policy's name, as in the config."""

    @property
    def source(self) -> str:
        """Its distribution and version."""

    @property
    def faults(self) -> Mapping[tuple[str, str], int]:
        """(plugin, kind of fault) -> times."""

    @property
    def is_quarantined(self) -> bool:
        """Whether the fallback decides in its stead."""


class SignalFacts(Protocol):
    """Whether something that decisions rest on is there."""

    @property
    def signal(self) -> str:
        """Which kind."""

    @property
    def subject(self) -> str:
        """Whose."""

    @property
    def is_degraded(self) -> bool:
        """Whether it cannot be relied upon."""

    @property
    def detail(self) -> str:
        """Why, or what is known."""


class HealthHandlers:
    """Answers `/liveness`, `/health` and `/readiness`.

    Liveness says only that this process answers: a supervisor that restarts the router because its workers are down
    makes nothing better. Readiness says whether a request would find a worker.

    Args:
        pools: All pools.
        policies: Returns the policy each pool has now, by the pool's name.
        is_draining: Tells whether the router is on its way out.
        signals: Returns the state of all signals, as of now.
    """

    def __init__(
        self,
        pools: Sequence[ProbedPool],
        policies: Callable[[], Mapping[str, PolicyStatus]],
        is_draining: Callable[[], bool],
        signals: Callable[[], Iterable[SignalFacts]] = tuple,
    ) -> None:
        self._pools = pools
        self._policies = policies
        self._is_draining = is_draining
        self._signals = signals

    async def liveness(self, request: web.Request) -> web.Response:
        """Answer 200, always; with `?verbose`, tell of signals, workers and policies."""
        if "verbose" not in request.query:
            return web.Response(text="OK")
        pools = [_pool_facts(pool, self._policies().get(pool.name)) for pool in self._pools]
        signals = [
            {"signal": each.signal, "subject": each.subject, "is_degraded": each.is_degraded, "detail": each.detail}
            for each in self._signals()
        ]
        status = "degraded" if any(each["is_degraded"] for each in signals) else "ok"
        return json_response({"status": status, "is_draining": self._is_draining(), "signals": signals, "pools": pools})

    async def readiness(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer 200 once one of the pools can serve a request, 503 before that and while draining."""
        missing = [_what_is_missing(pool) for pool in self._pools]
        if self._is_draining():
            return _not_ready("draining")
        if None not in missing:
            return _not_ready("; ".join(dict.fromkeys(map(str, missing))))
        workers = {worker.url: worker for pool in self._pools for worker in pool.workers}.values()
        healthy = sum(is_available(worker) for worker in workers)
        return json_response({"status": "ready", "healthy_workers": healthy, "total_workers": len(workers)})


def is_available(worker: Worker) -> bool:
    """Return whether a worker gets new requests."""
    return worker.is_healthy and not worker.is_draining


def json_response(facts: object, *, status: int = 200) -> web.Response:
    """Return facts as a JSON answer."""
    return web.Response(status=status, body=orjson.dumps(facts), content_type="application/json")


def _not_ready(reason: str) -> web.Response:
    return json_response({"status": "not ready", "reason": reason}, status=503)


def _what_is_missing(pool: ProbedPool) -> str | None:
    """Return None when a request would find a worker, else what is missing."""
    if not pool.workers:
        return "no workers"
    healthy = {worker.role for worker in pool.workers if is_available(worker) and worker.circuit is not Circuit.OPEN}
    needed = (WorkerRole.PREFILL, WorkerRole.DECODE) if pool.serves_pairs else (WorkerRole.REGULAR,)
    missing = next((role for role in needed if role not in healthy), None)
    if missing is None:
        return None
    return f"no healthy {missing} workers" if healthy else "no healthy workers"


def _pool_facts(pool: ProbedPool, policy: PolicyStatus | None) -> dict[str, object]:
    return {
        "name": pool.name,
        "policy": None if policy is None else _policy_facts(policy),
        "workers": [_worker_facts(worker) for worker in pool.workers],
    }


def _policy_facts(policy: PolicyStatus) -> dict[str, object]:
    faults = [{"plugin": plugin, "kind": kind, "count": count} for (plugin, kind), count in policy.faults.items()]
    return {"name": policy.name, "is_quarantined": policy.is_quarantined, "faults": faults}


def _worker_facts(worker: Worker) -> dict[str, object]:
    return {
        "url": worker.url,
        "role": worker.role,
        "is_healthy": worker.is_healthy,
        "is_draining": worker.is_draining,
        "circuit": worker.circuit,
        "load": worker.load,
        "models": sorted(worker.models),
        "adapters": dict(worker.adapters),
    }
