"""Which workers of a fleet belong to which pool: a worker is in the pool of each model it serves.

For a worker, these cases hold:

1. It serves models that have a pool: it is in each of those pools.
2. It serves a model that has none, too, or no model is known of it: it is in the pool for the rest.

A worker whose role its pools have no use for gets no request. Where that is plain when it joins, `why_unused` says
so; of one whose engine has yet to tell its models, the log does as soon as they are known.

What is said of a worker (its health, its models) is said to the fleet; the pools follow. A fleet that is one pool needs
nothing of this.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.pool import WorkerPool

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelPool:
    """A pool and what it is there for.

    Attributes:
        members: Its workers.
        model: The model it serves; None for the pool that serves all models without one of their own.
        aliases: Other names of the model.
    """

    members: WorkerPool
    model: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.members.name


class Partition:
    """Keeps pools in step with their fleet.

    Args:
        fleet: All workers.
        pools: Pools of a model each, and one for the rest.
    """

    def __init__(self, fleet: WorkerPool, pools: Sequence[ModelPool]) -> None:
        self._pools = tuple(pools)
        self._claimed = _claimed(pools)
        self._told: dict[str, frozenset[str]] = {}
        for worker in fleet.workers:
            self._place(worker)
        fleet.subscribe(self._place, self._leave, self._place)

    def _place(self, worker: Worker) -> None:
        for pool in self._pools:
            members, belongs = pool.members, _belongs(worker.models, pool, self._claimed)
            is_member = members.get(worker.url) is worker
            if is_member and belongs:
                members.forget_candidates()
            elif belongs:
                members.add(worker, is_learned=True)
            elif is_member:
                members.remove(worker.url)
        if worker.models and self._told.get(worker.url) != worker.models:
            self._told[worker.url] = worker.models
            if (reason := why_unused(self._pools, worker.role, worker.models)) is not None:
                names = ", ".join(sorted(worker.models))
                _log.warning("worker %s, which serves %s: %s", worker.url, names, reason)

    def _leave(self, worker: Worker) -> None:
        self._told.pop(worker.url, None)
        for pool in self._pools:
            if pool.members.get(worker.url) is worker:
                pool.members.remove(worker.url)


def why_unused(pools: Sequence[ModelPool], role: WorkerRole, models: Collection[str]) -> str | None:
    """Return why a worker would never get a request, and what to do; None if it may get some.

    Args:
        pools: All pools.
        role: The worker's role.
        models: The models it is said to serve; empty if its engine has yet to tell.
    """
    claimed, is_of_pair = _claimed(pools), role is not WorkerRole.REGULAR
    if any(pool.members.serves_pairs is is_of_pair for pool in pools if _belongs(models, pool, claimed, unknown=True)):
        return None
    if is_of_pair:
        return (
            f"a {role.value} worker would get no request, for no pool it may be in serves prefill/decode pairs; "
            "make it regular, or set pd.enabled and start the router again"
        )
    return (
        "a regular worker would get no request, for each is served by a prefill/decode pair; make it prefill or decode"
    )


def _claimed(pools: Sequence[ModelPool]) -> frozenset[str]:
    return frozenset(name for pool in pools if pool.model for name in (pool.model, *pool.aliases))


def _belongs(models: Collection[str], pool: ModelPool, claimed: frozenset[str], *, unknown: bool = False) -> bool:
    """Return whether a worker with these models is in a pool; `unknown` is the answer where none is known of it."""
    if pool.model is not None:
        return pool.model in models if models else unknown
    return not claimed.issuperset(models) if models else True
