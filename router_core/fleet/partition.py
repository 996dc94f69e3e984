"""Which workers of a fleet belong to which pool: a worker is in the pool of each model it serves.

For a worker, these cases hold:

1. It serves models that have a pool: it is in each of those pools.
2. It serves a model that has none, too, or no model is known of it: it is in the pool for the rest.

What is said of a worker (its health, its models) is said to the fleet; the pools follow. A fleet that is one pool needs
nothing of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router_core.contract.worker import Worker
from router_core.fleet.pool import WorkerPool


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
        self._claimed = frozenset(name for pool in pools if pool.model for name in (pool.model, *pool.aliases))
        for worker in fleet.workers:
            self._place(worker)
        fleet.subscribe(self._place, self._leave, self._place)

    def _place(self, worker: Worker) -> None:
        for pool in self._pools:
            members, belongs = pool.members, self._belongs(worker, pool)
            is_member = members.get(worker.url) is worker
            if is_member and belongs:
                members.forget_candidates()
            elif belongs:
                members.add(worker, is_learned=True)
            elif is_member:
                members.remove(worker.url)

    def _leave(self, worker: Worker) -> None:
        for pool in self._pools:
            if pool.members.get(worker.url) is worker:
                pool.members.remove(worker.url)

    def _belongs(self, worker: Worker, pool: ModelPool) -> bool:
        if pool.model is not None:
            return pool.model in worker.models
        return not worker.models or not worker.models <= self._claimed
