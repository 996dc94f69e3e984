"""Which addresses are registered: an id for each, and who of the pool stands behind it.

The pool says who is there; the registry follows it. Whoever adds or removes workers by their address (an administrator,
the roster) goes through here, because one address may have several workers, its data-parallel ranks.

For an address one of these cases holds:

1. A worker joins at an address that is not registered: it is registered, with a new id.
2. A worker joins at one that is: another rank of the same engine.
3. The last worker of an address leaves: its registration ends, and the id with it.
4. An address that is draining is added again: what is left of it leaves at once and the address gets a new id. Its
   running requests go on and still count.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.pool import WorkerPool
from router_core.fleet.worker_keys import WorkerKeys


class WorkerStatus(StrEnum):
    """How a registered address is."""

    REGISTERING = "registering"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


class AlreadyRegisteredError(Exception):
    """An address is registered already."""

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        super().__init__(registration)

    def __str__(self) -> str:
        return f"worker {self.registration.url} is registered already, as {self.registration.id}"


class Registration:
    """One address from its joining to its leaving.

    Attributes:
        id: Unique, never used again.
        url: The address.
        first: The worker that joined first; it tells this registration from a later one of the same address.
        workers: The pool's members at this address: one, or one for each data-parallel rank.
        registered_at: When it joined, seconds since the epoch.
        draining_since: When its removal began, likewise; None while it stays.
        was_ready: Whether it ever was well.
        kind: Which engine it is, `sglang` or `vllm`; None while unknown.
    """

    def __init__(self, worker: Worker, *, registered_at: float) -> None:
        self.id = str(uuid.uuid4())
        self.url = worker.base_url
        self.first = worker
        self.workers: tuple[Worker, ...] = (worker,)
        self.registered_at = registered_at
        self.draining_since: float | None = None
        self.was_ready = worker.is_healthy
        self.kind: str | None = None

    @property
    def status(self) -> WorkerStatus:
        """How it is now."""
        if self.is_draining:
            return WorkerStatus.DRAINING
        if any(worker.is_healthy for worker in self.workers):
            return WorkerStatus.READY
        return WorkerStatus.UNHEALTHY if self.was_ready else WorkerStatus.REGISTERING

    @property
    def is_draining(self) -> bool:
        """Whether it gets no more requests and leaves once it has none."""
        return all(worker.is_draining for worker in self.workers)


class WorkerRegistry:
    """The registrations of one pool, in the order they were made.

    Attributes:
        keys: The workers' API keys.

    Args:
        pool: The pool; whoever is in it already is registered.
        wall_clock: Tells when an address joined, seconds since the epoch.
        keys: The workers' API keys; one of an address's own goes with its registration.
    """

    def __init__(self, pool: WorkerPool, *, wall_clock: Callable[[], float], keys: WorkerKeys | None = None) -> None:
        self.keys = keys or WorkerKeys()
        self._pool = pool
        self._wall_clock = wall_clock
        self._by_url: dict[str, Registration] = {}
        self._by_id: dict[str, Registration] = {}
        self._kept: Registration | None = None  # while its only worker is exchanged for another
        for worker in pool.workers:
            self._joined(worker)
        pool.subscribe(self._joined, self._left, self._changed)

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """All of them."""
        return tuple(self._by_url.values())

    def find(self, id: str) -> Registration | None:
        """Return the registration with this id, or None."""
        return self._by_id.get(id)

    def at(self, url: str) -> Registration | None:
        """Return the registration of an address, or None."""
        return self._by_url.get(url)

    def kind_of(self, url: str) -> str | None:
        """Return the kind of engine at an address, None while nothing is known of it."""
        registration = self.at(url)
        return None if registration is None else registration.kind

    def was_ready(self, worker: Worker) -> bool:
        """Return whether a worker's address has ever been ready for requests."""
        registration = self.at(worker.base_url)
        return registration is not None and registration.was_ready

    def register(self, worker: Worker) -> Registration:
        """Take a worker in at an address of its own.

        Raises:
            AlreadyRegisteredError: If the address is registered and not draining.
        """
        present = self._by_url.get(worker.base_url)
        if present is not None and not present.is_draining:
            raise AlreadyRegisteredError(present)
        self.add(worker)
        return self._by_url[worker.base_url]

    def drain(self, registration: Registration) -> None:
        """Give an address no more requests and let it go once it has none."""
        for worker in registration.workers:
            self._pool.drain(worker.url)

    def describe(
        self,
        registration: Registration,
        *,
        role: WorkerRole | None = None,
        models: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Change what is known of an address; None leaves a thing as it is.

        A worker that changes its role leaves the pool and joins it again, so that policies hear of it; its running
        requests go on and still count.
        """
        if role is not None and role is not registration.workers[0].role:
            self._change_role(registration, role)
        for worker in registration.workers:
            if models is not None:
                self._pool.declare_models(worker, models)
            if labels is not None:
                self._pool.set_labels(worker, labels)

    def split(
        self, registration: Registration, dp_size: int, models: Iterable[str], adapters: Mapping[str, str]
    ) -> None:
        """Replace an address's one worker by a healthy one for each of its engine's data-parallel ranks.

        Args:
            registration: The address.
            dp_size: How many ranks there are.
            models: What the engine serves, if that was not declared.
            adapters: The LoRA adapters it has.
        """
        (worker,) = registration.workers
        is_learned = not self._pool.declares_models_of(worker)
        models = tuple(models) if is_learned else worker.models
        for rank in range(dp_size):  # first, so that the address stays registered
            self._pool.add(
                Worker(
                    f"{worker.url}@{rank}",
                    base_url=worker.base_url,
                    role=worker.role,
                    models=models,
                    adapters=adapters,
                    labels=worker.labels,
                ),
                is_learned=is_learned,
            )
        registration.was_ready = True
        self._pool.remove(worker.url)

    def note_health(self, worker: Worker, is_healthy: bool, reason: str | None) -> None:  # noqa: ARG002
        """A worker's health has changed; the health checker tells."""
        registration = self._by_url.get(worker.base_url)
        if registration is not None and is_healthy:
            registration.was_ready = True

    # --- for the roster: workers by their address ---

    def add(self, worker: Worker) -> Worker:
        """Take a worker in and return the one that now stands for its address.

        Raises:
            ValueError: If the address has a worker already that is not draining.
        """
        present = self._by_url.get(worker.base_url)
        if present is not None and present.is_draining:
            self.remove(present.url)
        return self._pool.add(worker)

    def remove(self, url: str) -> Worker | None:
        """Let an address go at once and return who stood for it, or None. Requests running there go on."""
        registration = self._by_url.get(url)
        if registration is None:
            return None
        for worker in registration.workers:
            self._pool.remove(worker.url)
        return registration.first

    def get(self, url: str) -> Worker | None:
        """Return who stands for an address; None if there is nobody, or nobody that stays."""
        registration = self._by_url.get(url)
        return None if registration is None or registration.is_draining else registration.first

    # --- following the pool ---

    def _joined(self, worker: Worker) -> None:
        registration = self._by_url.get(worker.base_url)
        if registration is None:
            registration = Registration(worker, registered_at=self._wall_clock())
            self._by_url[registration.url] = self._by_id[registration.id] = registration
        else:
            registration.workers = (*registration.workers, worker)

    def _left(self, worker: Worker) -> None:
        registration = self._by_url.get(worker.base_url)
        if registration is None:
            return
        registration.workers = tuple(other for other in registration.workers if other is not worker)
        if not registration.workers and registration is not self._kept:
            del self._by_url[registration.url], self._by_id[registration.id]
            self.keys.give(registration.url, None)

    def _changed(self, worker: Worker) -> None:
        if worker.is_draining:
            registration = self._by_url.get(worker.base_url)
            if registration is not None and registration.draining_since is None:
                registration.draining_since = self._wall_clock()

    def _change_role(self, registration: Registration, role: WorkerRole) -> None:
        self._kept = registration
        try:
            for worker in registration.workers:
                is_learned = not self._pool.declares_models_of(worker)
                self._pool.remove(worker.url)
                self._pool.add(
                    Worker(
                        worker.url,
                        base_url=worker.base_url,
                        role=role,
                        models=worker.models,
                        adapters=worker.adapters,
                        labels=worker.labels,
                        is_healthy=worker.is_healthy,
                    ),
                    is_learned=is_learned,
                )
        finally:
            self._kept = None
