"""Workers, requests and a pool context for tests, each in one line. No behaviour of the router lives here."""

from __future__ import annotations

import heapq
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from router_core.contract.request import Leg, LiteralPrompt, RoutingRequest
from router_core.contract.worker import Worker, WorkerRole

ALL_NEEDS = frozenset({"text", "prefix", "telemetry"})
"""Every need but headers, which are declared by name."""

_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KEPT_OBSERVATIONS = 10_000

_Labels: TypeAlias = frozenset[tuple[str, str]]


def make_worker(url: str = "http://worker-0", **figures: Any) -> Worker:
    """Return a healthy, idle worker; `figures` are any of `Worker`'s own arguments, such as `load=3`."""
    return Worker(url, **figures)


def make_workers(count: int, role: WorkerRole = WorkerRole.REGULAR, **figures: Any) -> tuple[Worker, ...]:
    """Return `count` workers of one role with urls of their own, such as `http://regular-0`."""
    return tuple(Worker(f"http://{role.value}-{index}", role=role, **figures) for index in range(count))


def make_request(
    text: str = "",
    *,
    id: str = "request-0",
    model: str | None = None,
    input_tokens: int | None = None,
    user: str | None = None,
    session: str | None = None,
    lora: str | None = None,
    cache_salt: str | None = None,
    headers: Mapping[str, str] | None = None,
    leg: Leg = Leg.SINGLE,
    attempt: int = 1,
    needs: Iterable[str] = ALL_NEEDS,
) -> RoutingRequest:
    """Return a request as a policy would get it.

    Args:
        text: The whole prompt.
        id: Names the request in messages.
        model: The model asked for, None for none.
        input_tokens: Estimated prompt tokens; a quarter of the text's bytes when not given.
        user: The end user, or None.
        session: The conversation, or None.
        lora: The LoRA adapter, or None.
        cache_salt: The KV-cache namespace, or None.
        headers: By lower-case name.
        leg: Single, or one leg of a pair.
        attempt: 1 for the first try.
        needs: What may be read. All by default; give a policy's own `needs` to see it fail on what it did not declare.
    """
    if input_tokens is None:
        input_tokens = len(text.encode("utf-8", "surrogatepass")) // 4
    prompt = LiteralPrompt(text, model, input_tokens, user, session, lora, cache_salt)
    return RoutingRequest(
        id, prompt, needs=frozenset(needs), headers=MappingProxyType(dict(headers or {})), leg=leg, attempt=attempt
    )


class FakePool:
    """A `PoolContext` whose time stands still until a test says `advance(seconds)`.

    It is stricter than the live one: a timer or a metric that the router would log and skip raises here.

    Attributes:
        name: The pool's name.
        random: Seeded with `seed`.
    """

    def __init__(self, name: str = "test", *, seed: int = 0) -> None:
        self.name = name
        self.random = random.Random(seed)  # noqa: S311  choices that repeat, not secrets
        self._now = 0.0
        self._timers: list[tuple[float, int, float, Callable[[], None]]] = []
        self._sequence = 0
        self._kinds: dict[str, tuple[str, frozenset[str]]] = {}
        self._numbers: dict[tuple[str, _Labels], float] = {}
        self._observations: dict[tuple[str, _Labels], deque[float]] = {}

    # --- what a policy sees ---

    def now(self) -> float:
        """Return the virtual seconds that passed."""
        return self._now

    def every(self, seconds: float, fn: Callable[[], None]) -> None:
        """Call `fn` each time `advance` passes another `seconds`."""
        if seconds <= 0:
            raise ValueError(f"pool.every({seconds!r}, ...): the interval must be positive")
        self._sequence += 1
        heapq.heappush(self._timers, (self._now + seconds, self._sequence, seconds, fn))

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to a counter; read it back with `counted`."""
        if value < 0:
            raise ValueError(f"pool.count({name!r}, {value!r}): a counter never goes down, use gauge")
        key = self._key("counter", name, labels)
        self._numbers[key] = self._numbers.get(key, 0) + value

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge; read it back with `gauged`."""
        self._numbers[self._key("gauge", name, labels)] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record an observation; read the latest ones back with `observed`."""
        key = self._key("histogram", name, labels)
        if key not in self._observations:
            self._observations[key] = deque(maxlen=_KEPT_OBSERVATIONS)
        self._observations[key].append(value)

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return what adds to one counter."""
        return lambda value: self.count(name, value, **labels)

    def histogram(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return what records one histogram's observations."""
        return lambda value: self.observe(name, value, **labels)

    # --- what a test does ---

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass and run the timers that fall due, each at its own moment."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, sequence, interval, fn = heapq.heappop(self._timers)
            self._now = due
            heapq.heappush(self._timers, (due + interval, sequence, interval, fn))
            fn()
        self._now = end

    def stop(self) -> None:
        """End all timers, as the pool does when it stops."""
        self._timers.clear()

    @property
    def timers(self) -> int:
        """How many timers run."""
        return len(self._timers)

    def counted(self, name: str, **labels: str) -> float:
        """Return what a counter stands at, 0 when it was never used."""
        return self._numbers.get((name, frozenset(labels.items())), 0)

    def gauged(self, name: str, **labels: str) -> float | None:
        """Return what a gauge was last set to, None when it never was."""
        return self._numbers.get((name, frozenset(labels.items())))

    def observed(self, name: str, **labels: str) -> tuple[float, ...]:
        """Return a histogram's latest observations, oldest first."""
        return tuple(self._observations.get((name, frozenset(labels.items())), ()))

    def _key(self, kind: str, name: str, labels: Mapping[str, str]) -> tuple[str, _Labels]:
        if not _METRIC_NAME.fullmatch(name):
            raise ValueError(f"metric {name!r}: use letters, digits and underscores, such as cache_hits_total")
        used = self._kinds.setdefault(name, (kind, frozenset(labels)))
        if used != (kind, frozenset(labels)):
            raise ValueError(
                f"metric {name!r}: first used as a {used[0]} with labels {sorted(used[1])}, "
                f"now as a {kind} with labels {sorted(labels)}; a metric keeps its kind and label names"
            )
        return name, frozenset(labels.items())
