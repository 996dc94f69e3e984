"""What a check is about: one policy, with its options, in one kind of pool; and the traffic to try it with."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from router_core.contract.policy import PolicyConfig
from router_core.contract.request import OutcomeStatus, RoutingRequest
from router_core.contract.worker import EngineTelemetry, Worker, WorkerRole
from router_core.testing.builders import make_request, make_workers
from router_core.testing.harness import Attempt, PolicyHarness

REGULAR_POOL = (WorkerRole.REGULAR,)
PAIR_POOL = (WorkerRole.PREFILL, WorkerRole.DECODE)

_STATUSES = tuple(OutcomeStatus)


@dataclass(frozen=True, slots=True)
class Subject:
    """One policy in one kind of pool.

    Attributes:
        policy_class: The class an entry point would name.
        options: Its options as they would stand in the config.
        roles: The roles of the pool's workers: regular alone, or prefill and decode.
        memory_options: Options laid over `options` where memory is measured, such as a small capacity.
        affinity: What the policy keeps together: `session`, `user` or `prompt`; None for nothing.
    """

    policy_class: type
    options: Mapping[str, object] = field(default_factory=dict)
    roles: tuple[WorkerRole, ...] = REGULAR_POOL
    memory_options: Mapping[str, object] = field(default_factory=dict)
    affinity: str | None = None

    def make_policy(self, options: Mapping[str, object] = MappingProxyType({})) -> Any:  # Any: somebody else's class
        """Return a fresh instance, built as the core builds it; `options` are laid over the subject's own."""
        config_class = getattr(self.policy_class, "Config", None)
        if config_class is None:
            return self.policy_class()
        config: PolicyConfig = config_class.model_validate({**self.options, **options})
        return self.policy_class(config)

    def harness(
        self, count: int = 4, *, seed: int = 0, options: Mapping[str, object] = MappingProxyType({})
    ) -> PolicyHarness:
        """Return a started pool of `count` workers of each role around a fresh instance."""
        workers = [worker for role in self.roles for worker in make_workers(count, role, models={"model-a"})]
        return PolicyHarness(self.make_policy(options), workers, seed=seed)

    @property
    def needs(self) -> frozenset[str]:
        """What the policy declares, empty when it declares nothing."""
        needs: frozenset[str] = getattr(self.make_policy(), "needs", frozenset())
        return needs

    def requests(self, prefix: str = "request") -> RequestMaker:
        """Return a maker of requests in which exactly the declared needs can be read."""
        return RequestMaker(self.needs, prefix)

    def __str__(self) -> str:
        roles = " and ".join(role.value for role in self.roles)
        return f"{self.policy_class.__name__}({dict(self.options)!r}) in a pool of {roles} workers"


class RequestMaker:
    """Makes requests with ids of their own, given only what the policy declares."""

    def __init__(self, needs: frozenset[str], prefix: str) -> None:
        self._needs = needs
        self._headers = [need.removeprefix("header:") for need in needs if need.startswith("header:")]
        self._prefix = prefix
        self._made = 0

    def plain(self, text: str = "", **facts: Any) -> RoutingRequest:
        """Return a request that names nobody and sends no headers."""
        self._made += 1
        return make_request(text, id=f"{self._prefix}-{self._made}", needs=self._needs, **facts)

    def distinct(self, key: int | None = None, *, characters: int = 0) -> RoutingRequest:
        """Return a request like no other: user, session, headers and the whole text are its own.

        Args:
            key: Make it like every other request of this key, None for a new one.
            characters: At least how long its text is.
        """
        number = self._made if key is None else key
        name = f"{self._prefix}-{number}"
        text = f"{number} {name}: "  # unlike from its first character on
        if characters > len(text):
            text *= characters // len(text) + 1
        return self.plain(
            text,
            model="model-a",
            user=f"user-{name}",
            session=f"session-{name}",
            headers={header: f"{header}-{name}" for header in self._headers},
        )

    def anonymous(self) -> RoutingRequest:
        """Return a request like no other that names nobody, as most clients send."""
        return self.plain(f"{self._made} asks. " * 16, model="model-a")

    def of(self, affinity: str, key: int) -> RoutingRequest:
        """Return a request that shares one thing with the others of its key: session, user or the prompt's start."""
        own, shared = f"{self._prefix}-own-{self._made}", f"{self._prefix}-{affinity}-{key}"
        return self.plain(
            f"{shared}: " * 1024 + own if affinity == "prompt" else f"{own}: " * 64,
            model="model-a",
            user=shared if affinity == "user" else own,
            session=shared if affinity == "session" else own,
            headers=dict.fromkeys(self._headers, shared if affinity == "session" else own),
        )


def traffic(
    harness: PolicyHarness, requests: RequestMaker, *, seed: int, steps: int = 300, churn: bool = True
) -> Iterator[str]:
    """Send a mixed hour of requests, one step at a time, and end every attempt; yield what was picked.

    All ends, early and late first tokens, members that leave with requests running and come back, health blips and,
    for a policy that asks for telemetry, readings that come and go. A pure function of the seed and the picks.
    """
    rng = random.Random(seed)  # noqa: S311  repeats, guards nothing
    has_telemetry = "telemetry" in getattr(harness.policy, "needs", ())
    waiting: list[Attempt] = []
    for _ in range(steps):
        harness.pool.advance(rng.random())
        if churn:
            _change_members(harness, rng)
        if has_telemetry:
            harness.set_engine(rng.choice(harness.workers), _reading(harness.pool.now(), rng))
        attempts = harness.send(requests.distinct(rng.randrange(40), characters=rng.choice((0, 10, 9000))))
        yield " ".join(attempt.worker.url for attempt in attempts) or "none"
        waiting += attempts
        for attempt in attempts:
            if rng.random() < 0.7:
                attempt.first_token()
        while waiting and rng.random() < 0.6:
            waiting.pop(rng.randrange(len(waiting))).complete(rng.choice(_STATUSES))
    for attempt in waiting:
        attempt.complete(rng.choice(_STATUSES))


def picks_of(attempts: Iterable[Attempt]) -> list[Worker]:
    """Return whom each attempt runs on."""
    return [attempt.worker for attempt in attempts]


def _change_members(harness: PolicyHarness, rng: random.Random) -> None:
    worker = rng.choice(harness.workers)
    roll = rng.random()
    # 1. A blip: down if somebody else of its role is up, up again otherwise.
    if roll < 0.1:
        harness.set_health(worker, healthy=not worker.is_healthy or len(harness.candidates(worker.role)) < 2)
    # 2. It leaves, whatever runs on it, and the same address joins again at once, with nothing of its past.
    elif roll < 0.13:
        harness.remove_worker(worker)
        harness.add_worker(Worker(worker.url, role=worker.role, models=worker.models))
    # 3. A newcomer.
    elif roll < 0.14:
        harness.add_worker(Worker(f"{worker.url}-{len(harness.workers)}-{rng.random()}", role=worker.role))
    # 4. It leaves for good, unless it is the last.
    elif roll < 0.15 and [w for w in harness.candidates(worker.role) if w is not worker]:
        harness.remove_worker(worker)


def _reading(now: float, rng: random.Random) -> EngineTelemetry | None:
    if rng.random() < 0.2:
        return None
    return EngineTelemetry(
        observed_at=now - rng.choice((0.0, 1.0, 600.0)),
        running_requests=rng.choice((None, 0, 7)),
        waiting_requests=rng.choice((None, 0, 30)),
        waiting_tokens=rng.choice((None, 0, 90_000)),
        cache_usage=rng.choice((None, 0.0, 1.0)),
    )
