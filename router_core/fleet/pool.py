"""The workers of one pool: who belongs to it and who is fit to be chosen.

A member leaves in one of two ways: `remove` lets it go at once, `drain` once its requests are done. Both let running
requests finish; a draining worker is still seen until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from router_core.contract.worker import Worker, WorkerRole, assign

WorkerListener = Callable[[Worker], None]


class WorkerPool:
    """Members in the order they joined.

    `candidates` returns the same tuple object while neither membership nor health changes, so a policy may compare it
    by identity.

    Attributes:
        name: The pool's name, as in the config.
        workers: All members, healthy or not.
    """

    def __init__(self, name: str = "default", workers: Iterable[Worker] = ()) -> None:
        self.name = name
        self.workers: tuple[Worker, ...] = ()
        self._by_url: dict[str, Worker] = {}
        self._departed: dict[str, Worker] = {}
        self._candidates: dict[WorkerRole, tuple[Worker, ...]] = {}
        self._on_added: list[WorkerListener] = []
        self._on_removed: list[WorkerListener] = []
        for worker in workers:
            self.add(worker)

    def candidates(self, role: WorkerRole = WorkerRole.REGULAR) -> tuple[Worker, ...]:
        """Return the healthy members of a role that are not draining; empty when there is none."""
        found = self._candidates.get(role)
        if found is None:
            found = tuple(
                worker
                for worker in self.workers
                if worker.is_healthy and not worker.is_draining and worker.role is role
            )
            self._candidates[role] = found
        return found

    def get(self, url: str) -> Worker | None:
        """Return the member with this url, or None."""
        return self._by_url.get(url)

    def add(self, worker: Worker) -> Worker:
        """Take a member in and return it.

        A url that left while requests were still running on it returns as the same worker, so that its load stays true.

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
                labels=worker.labels,
                is_healthy=worker.is_healthy,
                is_draining=worker.is_draining,
                base_url=worker.base_url,
            )
            worker = departed
        self._by_url[worker.url] = worker
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
            self._candidates.clear()
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
            self._candidates.clear()

    def set_models(self, worker: Worker, models: Iterable[str]) -> None:
        """Say which models a member serves."""
        assign(worker, models=frozenset(models))

    def set_labels(self, worker: Worker, labels: Mapping[str, str]) -> None:
        """Replace a member's labels."""
        assign(worker, labels=MappingProxyType(dict(labels)))

    def subscribe(self, on_added: WorkerListener | None = None, on_removed: WorkerListener | None = None) -> None:
        """Hear of members that join or leave from now on."""
        if on_added is not None:
            self._on_added.append(on_added)
        if on_removed is not None:
            self._on_removed.append(on_removed)

    def _members_changed(self) -> None:
        self.workers = tuple(self._by_url.values())
        self._candidates.clear()
