"""A simulated engine's knobs, which a test may turn at any time, and what it has seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from multidict import CIMultiDictProxy

from router_core.engine_model.presets import FAST
from router_core.engine_model.timing import EngineConstants
from router_core.testing.engine_request import DEFAULT_TOKENS, read_json
from router_core.testing.waiting import WAIT_S, Waiters


class Fault(StrEnum):
    """What can go wrong with an inference request. Faults below HTTP are the scripted server's business.

    `hang`: the request is read, nothing is ever answered. `close_before_head`: the connection closes instead of an
    answer. `close_mid_stream`: it breaks off after `close_after_tokens`. `short_body`: content-length promises more
    than comes.
    """

    HANG = "hang"
    CLOSE_BEFORE_HEAD = "close_before_head"
    CLOSE_MID_STREAM = "close_mid_stream"
    SHORT_BODY = "short_body"


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as it arrived.

    Attributes:
        method: As sent.
        target: Path and query as sent.
        headers: By name, any case.
        raw_headers: Names and values byte for byte, in order.
        body: Byte for byte, decoded from chunks.
        peer: The client's address: equal for requests that came over one connection.
    """

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    peer: tuple[str, int]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        return read_json(self.body)


@dataclass(kw_only=True, eq=False)
class EngineState:
    """Knobs and records of one simulated engine. Knobs may be changed while it runs.

    Attributes:
        name: Who it is: in the header `x-simulated-engine` and in `system_fingerprint`.
        host: Where it listens.
        port: Where it listens; 0 for a free one, which then stays its port.
        models: Ids in `/v1/models`; the first is the name of answers to requests that name none.
        adapters: LoRA adapters it has, by name, each with its model; listed in `/v1/models`.
        is_strict_about_models: Whether another model is answered with 404, as vLLM does.
        tokens: Length of an answer before the model would stop by itself.
        ttft_s: Seconds from request to first token; None to compute it from `constants`.
        token_interval_s: Seconds from token to token; None to compute it from `constants`.
        constants: What the simulated GPU and model cost.
        cache_tokens: Tokens of prefix cache, 0 for none; None for what `constants` say. Read at the start.
        status: The status inference requests are answered with: 200, or an error.
        retry_after_s: The `retry-after` header of such an error.
        fault: What goes wrong with inference requests.
        faults_left: How many more requests `status` and `fault` apply to; None for all.
        close_after_tokens: When `close_mid_stream` strikes.
        health_status: The status of `GET /health`.
        health_hangs: Whether `GET /health` is never answered.
        metrics_status: The status of `GET /metrics` and other telemetry.
        drip_bytes: Answers go out in pieces of so many bytes; 0 for whole.
        drip_interval_s: Seconds between the pieces.
        closes_connections: Whether answers carry `Connection: close`.
        reads_until_close: Whether answers have neither length nor chunks and end with the connection, as in HTTP/1.0.
        interim_status: An informational answer (1xx) to send before the final one.
        kept_requests: How many of the latest requests `requests` holds.
        dp_size: How many data-parallel ranks it has.
        pd: Whose prefill/decode protocol it speaks, strictly; None for an engine that does both itself.
        role: Which leg it serves; given together with `pd`.
        connector: How vLLM moves KV caches: `nixl`, `nixl-push`, `mooncake` or `p2p`.
        bootstrap_port: Port of its bootstrap server (SGLang, Mooncake) or side channel; 0 for a free one.
        transfer_s: How long a KV cache takes from one engine to the other.
        transfer_timeout_s: How long a prefill engine keeps a KV cache, and a decode engine waits for one.
        recomputes: Whether a vLLM decode engine does the prefill itself when it is given no `kv_transfer_params`.
    """

    name: str = "engine"
    host: str = "127.0.0.1"
    port: int = 0
    models: tuple[str, ...] = ("simulated-model",)
    adapters: Mapping[str, str] = field(default_factory=dict)
    is_strict_about_models: bool = False
    tokens: int = DEFAULT_TOKENS
    ttft_s: float | None = None
    token_interval_s: float | None = None
    constants: EngineConstants = FAST
    cache_tokens: int | None = None
    status: int = 200
    retry_after_s: int | None = None
    fault: Fault | None = None
    faults_left: int | None = None
    close_after_tokens: int = 1
    health_status: int = 200
    health_hangs: bool = False
    metrics_status: int = 200
    drip_bytes: int = 0
    drip_interval_s: float = 0.0
    closes_connections: bool = False
    reads_until_close: bool = False
    interim_status: int | None = None
    kept_requests: int = 1000
    dp_size: int = 1
    pd: Literal["sglang", "vllm"] | None = None
    role: Literal["prefill", "decode"] | None = None
    connector: Literal["nixl", "nixl-push", "mooncake", "p2p"] = "nixl"
    bootstrap_port: int = 0
    transfer_s: float = 0.0
    transfer_timeout_s: float = 30.0
    recomputes: bool = False

    requests: deque[SeenRequest] = field(init=False)
    """The latest inference requests, oldest first."""
    probes: int = field(default=0, init=False)
    """Requests to `/health` so far."""
    connections: int = field(default=0, init=False)
    """Connections accepted so far."""
    accepted: int = field(default=0, init=False)
    """Inference requests read so far; each of them is running, or one of the three below."""
    running: int = field(default=0, init=False)
    """Inference requests being worked on."""
    peak_running: int = field(default=0, init=False)
    """The most that ran at once."""
    completed: int = field(default=0, init=False)
    """Inference requests answered to the end, with whatever status."""
    aborted: int = field(default=0, init=False)
    """Inference requests whose client went away before the end."""
    failed: int = field(default=0, init=False)
    """Inference requests that a fault, or the engine's stop, cut off."""
    transfers: int = field(default=0, init=False)
    """KV caches handed over by this engine, or received."""
    stranded: int = field(default=0, init=False)
    """KV caches computed and never fetched, or awaited and never come."""
    held: int = field(default=0, init=False)
    """KV caches computed and not fetched yet."""
    refused: int = field(default=0, init=False)
    """Requests that broke the prefill/decode protocol."""
    _waiters: Waiters = field(default_factory=Waiters, init=False)

    def __post_init__(self) -> None:
        if (self.pd is None) is not (self.role is None):
            raise ValueError(f"engine {self.name!r}: give both pd and role, or neither")
        self.requests = deque(maxlen=self.kept_requests)

    async def wait_for_abort(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `count` requests so far have been aborted."""
        await self.wait_until(lambda: self.aborted >= count, timeout_s)

    async def wait_idle(self, timeout_s: float = WAIT_S) -> None:
        """Wait until no inference request is running."""
        await self.wait_until(lambda: self.running == 0, timeout_s)

    async def wait_running(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until at least `count` inference requests are running."""
        await self.wait_until(lambda: self.running >= count, timeout_s)

    async def wait_accepted(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `count` inference requests so far have been read."""
        await self.wait_until(lambda: self.accepted >= count, timeout_s)

    async def wait_probed(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `count` requests to `/health` so far have come."""
        await self.wait_until(lambda: self.probes >= count, timeout_s)

    async def wait_until(self, is_reached: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until a predicate over the counters holds; it is asked whenever one of them changes.

        Raises:
            TimeoutError: If it takes longer than `timeout_s`; the message has the counters.
        """
        await self._waiters.wait(is_reached, timeout_s, lambda: f"engine {self.name!r}: {self.counters()}")

    def counters(self) -> dict[str, int]:
        """Return the counters by name."""
        names: tuple[str, ...] = (
            "probes",
            "connections",
            "accepted",
            "running",
            "peak_running",
            "completed",
            "aborted",
            "failed",
        )
        if self.pd is not None:
            names += ("transfers", "stranded", "held", "refused")
        return {name: getattr(self, name) for name in names}

    def changed(self) -> None:
        """Wake those who wait for a counter that has now arrived."""
        self._waiters.changed()

    def take_fault(self) -> tuple[int, Fault | None]:
        """Return the status and fault of the next inference request, and count it."""
        if self.status == 200 and self.fault is None:
            return 200, None
        if self.faults_left is not None:
            if self.faults_left <= 0:
                return 200, None
            self.faults_left -= 1
        return self.status, self.fault
