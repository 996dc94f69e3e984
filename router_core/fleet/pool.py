"""The workers of one pool: who belongs to it and who is fit to be chosen.

A member leaves in one of two ways: `remove` lets it go at once, `drain` once its requests are done. Both let running
requests finish; a draining worker is still seen until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from router_core.contract.worker import Circuit, Worker, WorkerRole, assign

_LETTING_THROUGH = (Circuit.CLOSED, Circuit.HALF_OPEN)
WorkerListener = Callable[[Worker], None]


class WorkerPool:
    """Members in the order they joined.

    `candidates` returns the same tuple object while neither membership nor health changes, so a policy may compare it
    by identity.

    Attributes:
        name: The pool's name, as in the config.
        workers: All members, healthy or not.
        serves_pairs: Whether requests go to a prefill and a decode worker each; else to a regular one.
    """

    def __init__(self, name: str = "default", workers: Iterable[Worker] = (), *, serves_pairs: bool = False) -> None:
        self.name = name
        self.serves_pairs = serves_pairs
        self.workers: tuple[Worker, ...] = ()
        self._by_url: dict[str, Worker] = {}
        self._departed: dict[str, Worker] = {}
        self._declared: set[str] = set()  # urls of those whose models were declared
        self._candidates: dict[WorkerRole, tuple[Worker, ...]] = {}
        self._candidates_for: dict[tuple[WorkerRole, str], tuple[Worker, ...]] = {}
        self._on_added: list[WorkerListener] = []
        self._on_removed: list[WorkerListener] = []
        self._on_changed: list[WorkerListener] = []
        for worker in workers:
            self.add(worker)

    def candidates(self, role: WorkerRole = WorkerRole.REGULAR, model: str | None = None) -> tuple[Worker, ...]:
        """Return the members of a role that are healthy, not draining and not held back by their circuit breakers.

        Args:
            role: What part of a request is to be served.
            model: Only those that have this model or adapter; empty text: only those of which no model is known.
        """
        if model is not None:
            return self._candidates_with(role, model)
        found = self._candidates.get(role)
        if found is None:
            found = tuple(
                worker
                for worker in self.workers
                if worker.is_healthy
                and not worker.is_draining
                and worker.role is role
                and worker.circuit in _LETTING_THROUGH
            )
            self._candidates[role] = found
        return found

    def get(self, url: str) -> Worker | None:
        """Return the member with this url, or None."""
        return self._by_url.get(url)

    def add(self, worker: Worker, *, is_learned: bool = False) -> Worker:
        """Take a member in and return it.

        A url that left while requests were still running on it returns as the same worker, so that its load stays true.

        Args:
            worker: Who joins.
            is_learned: Whether the models it has were asked of its engine, which may come to serve others.

        Raises:
            ValueError: If a member has this url already.
        """
        if worker.url in self._by_url:
            raise ValueError(f"worker {worker.url} is in pool {self.name!r} already: remove it first")
        departed = self._departed.pop(worker.url, None)
        if departed is not None and departed.load > 0:
            assign(
                departed,
                role=worker.role,
                models=worker.models,
                adapters=worker.adapters,
                labels=worker.labels,
                is_healthy=worker.is_healthy,
                is_draining=worker.is_draining,
                base_url=worker.base_url,
            )
            worker = departed
        self._by_url[worker.url] = worker
        if worker.models and not is_learned:
            self._declared.add(worker.url)
        self._members_changed()
        for listener in self._on_added:
            listener(worker)
        return worker

    def remove(self, url: str) -> Worker | None:
        """Let a member go for good and return it; None if there is none. Requests running on it go on."""
        worker = self._by_url.pop(url, None)
        if worker is None:
            return None
        self._departed = {u: w for u, w in self._departed.items() if w.load > 0}
        if worker.load > 0:
            self._departed[url] = worker
        self._declared.discard(url)
        self._members_changed()
        for listener in self._on_removed:
            listener(worker)
        return worker

    def drain(self, url: str) -> Worker | None:
        """Give a member no more requests, let it go once it has none, and return it; None if there is none.

        A member without requests leaves at once; to drain it again changes nothing.
        """
        worker = self._by_url.get(url)
        if worker is None:
            return None
        if not worker.is_draining:
            assign(worker, is_draining=True)
            self._changed(worker)
        self.finish_draining(worker)
        return worker

    def finish_draining(self, worker: Worker) -> None:
        """Let a draining member go if no request runs on it any more. To be called after each completion on one."""
        if worker.is_draining and worker.load == 0 and self._by_url.get(worker.url) is worker:
            self.remove(worker.url)

    def set_health(self, worker: Worker, is_healthy: bool) -> None:
        """Say whether a member is fit to be chosen."""
        if worker.is_healthy is not is_healthy:
            assign(worker, is_healthy=is_healthy)
            self._changed(worker)

    def set_circuit(self, worker: Worker, circuit: Circuit) -> None:
        """Say how a worker's circuit breaker stands; of one that has left, too, for it may come back."""
        if worker.circuit is not circuit:
            assign(worker, circuit=circuit)
            if self._by_url.get(worker.url) is worker:
                self._changed(worker)

    def learn_models(self, worker: Worker, models: Iterable[str], adapters: Mapping[str, str]) -> None:
        """Note what a member's engine tells it serves. Of its models, those that were declared count instead."""
        served = worker.models if worker.url in self._declared else frozenset(models)
        if served != worker.models or dict(adapters) != worker.adapters:
            assign(worker, models=served, adapters=MappingProxyType(dict(adapters)))
            self._changed(worker)

    def declare_models(self, worker: Worker, models: Iterable[str]) -> None:
        """Say which models a member serves, whatever its engine tells; none leaves it to what the engine tells next."""
        declared = frozenset(models)
        if declared:
            self._declared.add(worker.url)
        else:
            self._declared.discard(worker.url)
        if declared and declared != worker.models:
            assign(worker, models=declared)
            self._changed(worker)

    def declares_models_of(self, worker: Worker) -> bool:
        """Return whether a member's models were declared, not learned."""
        return worker.url in self._declared

    def set_labels(self, worker: Worker, labels: Mapping[str, str]) -> None:
        """Replace a member's labels."""
        assign(worker, labels=MappingProxyType(dict(labels)))

    def forget_candidates(self) -> None:
        """Work out anew who may be chosen: something has changed about a member that is in several pools."""
        self._candidates.clear()
        self._candidates_for.clear()

    def subscribe(
        self,
        on_added: WorkerListener | None = None,
        on_removed: WorkerListener | None = None,
        on_changed: WorkerListener | None = None,
    ) -> None:
        """Hear from now on of members that join or leave, or become fit or unfit, or serve other models."""
        if on_added is not None:
            self._on_added.append(on_added)
        if on_removed is not None:
            self._on_removed.append(on_removed)
        if on_changed is not None:
            self._on_changed.append(on_changed)

    def _candidates_with(self, role: WorkerRole, model: str) -> tuple[Worker, ...]:
        found = self._candidates_for.get((role, model))
        if found is None:
            found = tuple(worker for worker in self.candidates(role) if has_model(worker, model))
            self._candidates_for[role, model] = found
        return found

    def _members_changed(self) -> None:
        self.workers = tuple(self._by_url.values())
        self.forget_candidates()

    def _changed(self, worker: Worker) -> None:
        self.forget_candidates()
        for listener in self._on_changed:
            listener(worker)


def has_model(worker: Worker, model: str) -> bool:
    """Return whether a worker has a model or an adapter; with empty text, whether nothing is known of its models."""
    return model in worker.models or model in worker.adapters if model else not worker.models
