"""The worker as a policy sees it: who it is and how busy it is.

Only the core changes a worker (the ledger its load, the pool its health); to everybody else it is read-only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

_NOTHING: Mapping[str, str] = MappingProxyType({})


class WorkerRole(StrEnum):
    """What part of a request a worker serves."""

    REGULAR = "regular"
    PREFILL = "prefill"
    DECODE = "decode"


class Circuit(StrEnum):
    """What a worker's circuit breaker lets through.

    `closed`: all requests. `open`: none. `half_open`: one, and while that is under way, `probing`, no other.
    """

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    PROBING = "probing"
    OPEN = "open"


class EngineTelemetry(NamedTuple):
    """What an engine last said of itself. A figure it does not tell is None, never 0 or -1.

    Attributes:
        observed_at: When it was read, in the pool's clock (`pool.now()`), seconds.
        running_requests: Requests the engine is computing.
        waiting_requests: Requests queued inside the engine.
        waiting_tokens: Uncached prompt tokens queued inside the engine.
        cache_usage: Share of the KV cache in use, 0 to 1.
    """

    observed_at: float
    running_requests: int | None = None
    waiting_requests: int | None = None
    waiting_tokens: int | None = None
    cache_usage: float | None = None

    def age(self, now: float) -> float:
        """Return how many seconds old this reading is at `now` (`pool.now()`)."""
        return now - self.observed_at


class Worker:
    """A read-only view of one worker.

    Attributes:
        url: Unique in its pool. With data-parallel ranks it ends in `@rank`.
        base_url: The address requests go to.
        role: Regular, prefill or decode.
        models: Ids of the models it serves, adapters not among them; empty while unknown.
        adapters: LoRA adapters it has loaded, by name, each with the model it belongs to as its engine tells.
        labels: Free key-value pairs from config or discovery.
        is_healthy: Whether health checks pass. Candidates given to a policy always are.
        circuit: State of its circuit breaker. Candidates' are closed or half open.
        is_draining: Whether it gets no more requests and leaves once those it has are done. Candidates never are.
        load: Requests in flight through this router on this worker. Never None.
        pending_prompt_tokens: Estimated prompt tokens sent to it whose prefill is not over.
        decode_tokens: Estimated context tokens of the requests it is decoding.
        requests_processed: Requests completed since it joined.
        last_reserved: Sequence number of its latest reservation in the pool, 0 when it had none. Breaks ties fairly.
        engine: Polled telemetry, or None when there is none.
    """

    __slots__ = (
        "url",
        "base_url",
        "role",
        "models",
        "adapters",
        "labels",
        "is_healthy",
        "circuit",
        "is_draining",
        "load",
        "pending_prompt_tokens",
        "decode_tokens",
        "requests_processed",
        "last_reserved",
        "engine",
    )

    url: str
    base_url: str
    role: WorkerRole
    models: frozenset[str]
    adapters: Mapping[str, str]
    labels: Mapping[str, str]
    is_healthy: bool
    circuit: Circuit
    is_draining: bool
    load: int
    pending_prompt_tokens: int
    decode_tokens: int
    requests_processed: int
    last_reserved: int
    engine: EngineTelemetry | None

    def __init__(
        self,
        url: str,
        *,
        base_url: str | None = None,
        role: WorkerRole = WorkerRole.REGULAR,
        models: Iterable[str] = (),
        adapters: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        is_healthy: bool = True,
        is_draining: bool = False,
        load: int = 0,
        pending_prompt_tokens: int = 0,
        decode_tokens: int = 0,
        requests_processed: int = 0,
        last_reserved: int = 0,
        engine: EngineTelemetry | None = None,
    ) -> None:
        assign(
            self,
            url=url,
            base_url=url if base_url is None else base_url,
            role=role,
            models=frozenset(models),
            adapters=_NOTHING if not adapters else MappingProxyType(dict(adapters)),
            labels=_NOTHING if labels is None else MappingProxyType(dict(labels)),
            is_healthy=is_healthy,
            circuit=Circuit.CLOSED,
            is_draining=is_draining,
            load=load,
            pending_prompt_tokens=pending_prompt_tokens,
            decode_tokens=decode_tokens,
            requests_processed=requests_processed,
            last_reserved=last_reserved,
            engine=engine,
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"Worker.{name} is read-only, the core owns it: keep a policy's own notes in a dict by worker.url"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Worker.{name} cannot be deleted: a worker is read-only")

    def __repr__(self) -> str:
        state = "draining" if self.is_draining else "healthy" if self.is_healthy else "unhealthy"
        return f"Worker({self.url!r}, role={self.role.value}, load={self.load}, {state})"


def assign(worker: Worker, **figures: Any) -> None:
    """Change a worker's figures. For the core (fleet, simulator, test kit) alone; policies never call it."""
    for name, value in figures.items():
        object.__setattr__(worker, name, value)
