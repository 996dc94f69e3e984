"""Which models a fleet serves under which names, and who may serve a name. Worked out anew when the fleet changes.

Names are found in this order:

1. The aliases, which the settings give to a model that has a pool.
2. The models: those with a pool, whether a worker is there or not, then what the workers serve.
3. The LoRA adapters that workers have loaded.
4. `model:adapter`, SGLang's way to name both: workers that have the adapter, or if none lists it, all of the model's.
5. Anything else: workers of which no model is known, for they may serve it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.partition import ModelPool
from router_core.fleet.pool import WorkerPool, has_model


class Route(NamedTuple):
    """Who may serve a name.

    Attributes:
        pool: The pool's name.
        model: Only workers of the pool that have this model or adapter; None for all of them, empty text for those of
            which no model is known.
        real_name: The name the workers know.
    """

    pool: str
    model: str | None
    real_name: str


class ListedModel(NamedTuple):
    """A name that clients may use.

    Attributes:
        id: The name.
        parent: The model an adapter belongs to, else None.
        alias_of: The real name, if this is an alias.
        is_available: Whether a worker is there that gets requests for it.
    """

    id: str
    parent: str | None
    alias_of: str | None
    is_available: bool


@dataclass(frozen=True, slots=True)
class ModelView:
    """What is known of a fleet's models at one time.

    Attributes:
        routes: By name; aliases, models and adapters.
        parents: The model of each adapter.
        is_uniform: Whether there is one pool, and every name may be served by all of its workers.
        for_the_unknown: Where a name goes that is not known; None if nobody could serve it.
        has_newcomers: Whether a worker is there that was never well and whose models are not known.
    """

    routes: Mapping[str, Route]
    parents: Mapping[str, str]
    is_uniform: bool
    for_the_unknown: Route | None
    has_newcomers: bool

    def find(self, name: str) -> Route | None:
        """Return who may serve a name, None if nobody is known."""
        route = self.routes.get(name)
        if route is not None:
            return route
        base, colon, adapter = name.rpartition(":")
        of_base = self.routes.get(base) if colon else None
        if of_base is None:
            return self.for_the_unknown
        of_adapter = self.routes.get(adapter)
        is_listed = of_adapter is not None and of_adapter.pool == of_base.pool and adapter in self.parents
        model = of_adapter.model if is_listed and of_adapter is not None else of_base.model
        return Route(of_base.pool, model, f"{of_base.real_name}:{adapter}")


class ModelDirectory:
    """Keeps the view of a fleet's models.

    Args:
        fleet: All workers.
        pools: The pools they are parted into, the one for the rest last; or one pool, the fleet itself.
        was_well: Tells whether a worker ever was well.
        passes_unknown: Whether any worker of the last pool may be asked for a name that nobody lists.
    """

    def __init__(
        self,
        fleet: WorkerPool,
        pools: Sequence[ModelPool],
        *,
        was_well: Callable[[Worker], bool],
        passes_unknown: bool = False,
    ) -> None:
        self._fleet = fleet
        self._pools = tuple(pools)
        self._was_well = was_well
        self._passes_unknown = passes_unknown
        self._view: ModelView | None = None
        fleet.subscribe(self._forget, self._forget, self._forget)

    def view(self) -> ModelView:
        """Return what is known now; the same object until something changes."""
        view = self._view
        if view is None:
            view = self._view = self._look()
        return view

    def listed(self) -> list[ListedModel]:
        """Return every name that clients may use, in the order of the pools."""
        view = self.view()
        pools = {pool.name: pool.members for pool in self._pools}
        return [
            ListedModel(
                name,
                view.parents.get(name),
                route.real_name if route.real_name != name else None,
                any(pools[route.pool].candidates(role, route.model) for role in WorkerRole),
            )
            for name, route in view.routes.items()
        ]

    def _forget(self, worker: Worker) -> None:  # noqa: ARG002  # told of each that changes
        self._view = None

    def _look(self) -> ModelView:
        routes: dict[str, Route] = {}
        parents: dict[str, str] = {}
        claimed = {name for pool in self._pools if pool.model for name in (pool.model, *pool.aliases)}
        for pool in self._pools:
            known = [worker for worker in pool.members.workers if worker.models or worker.is_healthy]
            if pool.model is not None:
                routes[pool.model] = Route(pool.name, None, pool.model)
                routes.update((alias, Route(pool.name, None, pool.model)) for alias in pool.aliases)
            else:
                for name in _in_order(worker.models for worker in known):
                    if name not in claimed:
                        routes[name] = Route(pool.name, _restriction(known, name), name)
        for pool in self._pools:
            known = [worker for worker in pool.members.workers if worker.models or worker.is_healthy]
            for worker in known:
                for name, parent in worker.adapters.items():
                    if name not in routes and (parent == pool.model or parent not in claimed):
                        routes[name] = Route(pool.name, _restriction(known, name), name)
                        parents[name] = parent
        rest = self._pools[-1]
        silent = [worker for worker in rest.members.workers if worker.is_healthy and not worker.models]
        talks = any(worker.models for worker in rest.members.workers) and not self._passes_unknown
        unknown = Route(rest.name, "" if talks else None, "") if silent or self._passes_unknown else None
        return ModelView(
            routes=routes,
            parents=parents,
            is_uniform=len(self._pools) == 1 and all(route.model is None for route in routes.values()),
            for_the_unknown=unknown,
            has_newcomers=any(
                not worker.models and not worker.is_healthy and not worker.is_draining and not self._was_well(worker)
                for worker in self._fleet.workers
            ),
        )


def _restriction(known: Iterable[Worker], name: str) -> str | None:
    """Return what limits the workers to those that have a model or adapter; None if all have it."""
    return None if all(has_model(worker, name) for worker in known) else name


def _in_order(groups: Iterable[Iterable[str]]) -> list[str]:
    return sorted({name for group in groups for name in group})
