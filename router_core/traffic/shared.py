"""What the traffic of all pools of a router shares: one ledger, one way to each worker, one memory of who made what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from router_core.contract.worker import Worker
from router_core.fleet.breaker import CircuitBreakers
from router_core.fleet.ledger import Ledger
from router_core.relay.exchange import Exchange
from router_core.relay.origin import Origin
from router_core.traffic.retry import Retries
from router_core.traffic.stored_responses import StoredResponses


@dataclass(frozen=True, slots=True)
class SharedTraffic:
    """Given to the dispatcher of each pool.

    Attributes:
        loop: Where timers run.
        now: Monotonic seconds.
        origin: From a worker's address to the way there.
        on_connect_failed: Told of a worker that could not be connected to, was lost, or was silent for too long.
        finish_draining: Lets a draining worker go if nothing runs on it any more; to be called after a completion.
        address: Makes a request one for a data-parallel rank; None without ranks.
        breakers: Keep requests from workers that fail them.
        retries: Grant further attempts at requests that failed.
        ledger: Who has which load. One for all pools: a worker that serves two models is in two of them.
        stored_responses: Which worker made which stored response.
    """

    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    origin: Callable[[str], Origin]
    on_connect_failed: Callable[[Worker], None]
    finish_draining: Callable[[Worker], None]
    breakers: CircuitBreakers
    retries: Retries
    address: Callable[[Exchange, Worker], None] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    stored_responses: StoredResponses = field(default_factory=StoredResponses)
