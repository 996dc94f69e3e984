"""A router before simulated prefill and decode engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from router_core.api import Leg, OutcomeStatus, hookimpl
from router_core.contract.worker import WorkerRole
from router_core.testing.simulated_engine import SimulatedEngine

from .support import Router, serving, until

NEVER_S = 3600.0
PREFILL, DECODE = WorkerRole.PREFILL, WorkerRole.DECODE
CONNECTORS = ("nixl", "nixl-push", "mooncake", "p2p")  # of vLLM; `-push` is what the engine does, not the router


class PairRouter(Router):
    """A router that places pairs; every pair has two completions."""

    def is_settled(self) -> bool:
        return not any(map(any, self.load()))

    async def legs(self, pairs: int = 1) -> dict[Leg, list[Any]]:
        """Wait for the completions of so many attempts, check that there are no more, return outcomes by leg."""
        await until(lambda: len(self.record.completed) >= 2 * pairs, f"{2 * pairs} completions")
        assert self.is_settled(), self.load()
        by_leg: dict[Leg, list[Any]] = {Leg.PREFILL: [], Leg.DECODE: []}
        for worker, _, outcome in self.record.completed:
            assert worker.role.value == outcome.leg.value
            by_leg[outcome.leg].append(outcome)
        assert [len(found) for found in by_leg.values()] == [pairs, pairs], self.record.completed
        return by_leg

    async def statuses(self) -> tuple[OutcomeStatus, OutcomeStatus]:
        """Return how the prefill and the decode leg of the one request ended."""
        legs = await self.legs()
        return legs[Leg.PREFILL][0].status, legs[Leg.DECODE][0].status

    def worker(self, role: WorkerRole) -> Any:
        return next(worker for worker in self.server.pool.workers if worker.role is role)


class JointPolicy:
    """Takes the last worker of each side, in one decision."""

    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        return prefill_workers[-1], decode_workers[-1]


@contextlib.asynccontextmanager
async def running_pair_router(
    prefills: Sequence[SimulatedEngine],
    decodes: Sequence[SimulatedEngine],
    *,
    protocol: str = "sglang",
    options: dict[str, Any] | None = None,
    policy: Any = "round_robin",
    **settings: Any,
) -> AsyncIterator[PairRouter]:
    """Run a router before engines that are started already and wait until they are healthy."""
    pairs = {
        "protocol": protocol,
        "options": options or {},
        "prefill": [{"url": each.url, "bootstrap_port": each.bootstrap_port or None} for each in prefills],
        "decode": [each.url for each in decodes],
    }
    async with serving(
        PairRouter,
        {"policy": policy, "pd": pairs, **settings},
        is_ready=lambda pool: (
            len(pool.candidates(PREFILL)) == len(prefills) and len(pool.candidates(DECODE)) == len(decodes)
        ),
    ) as router:
        yield router


@contextlib.asynccontextmanager
async def pair(
    protocol: str = "sglang",
    *,
    connector: str = "nixl",
    prefill: dict[str, Any] | None = None,
    decode: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[SimulatedEngine, SimulatedEngine, PairRouter]]:
    """Run one engine of each role, and a router."""
    knobs = {"pd": protocol, "connector": connector, "tokens": 8}
    async with (
        SimulatedEngine(name="prefill", role="prefill", **knobs, **(prefill or {})) as first,
        SimulatedEngine(name="decode", role="decode", **knobs, **(decode or {})) as last,
        running_pair_router([first], [last], protocol=protocol, **settings) as router,
    ):
        yield first, last, router


def options_of(protocol: str, connector: str) -> dict[str, Any]:
    """Return what a router has to be told of the engines' protocol."""
    return {"connector": connector.removesuffix("-push")} if protocol == "vllm" else {}


def vllm_pair(connector: str = "nixl", **settings: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    """Run one engine of each role that speak vLLM's protocol, and a router."""
    options = options_of("vllm", connector) | settings.pop("options", {})
    return pair("vllm", connector=connector, options=options, **settings)


@contextlib.asynccontextmanager
async def two_of_each(
    protocol: str = "sglang", *, connector: str = "nixl"
) -> AsyncIterator[tuple[list[SimulatedEngine], list[SimulatedEngine]]]:
    """Run the prefill engines prefill-0 and prefill-1, and the decode engines decode-0 and decode-1."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for role in ("prefill", "decode"):
            for number in range(2):
                engine = SimulatedEngine(name=f"{role}-{number}", role=role, pd=protocol, connector=connector, tokens=4)
                made.append(await stack.enter_async_context(engine))
        yield made[:2], made[2:]


async def assert_nothing_is_left(*engines: SimulatedEngine) -> None:
    """Check that no KV cache was computed for nothing and no leg was worded wrongly."""
    for engine in engines:
        await engine.wait_idle()
        counts = engine.counters()
        assert (counts["stranded"], counts["held"], counts["refused"]) == (0, 0, 0), (engine.name, counts)


async def turns(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
