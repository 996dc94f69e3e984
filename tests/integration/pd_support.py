"""A router before simulated prefill and decode engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

from router_core.api import Leg, OutcomeStatus, hookimpl
from router_core.cli.router_server import RouterServer
from router_core.config import RouterConfig
from router_core.contract.worker import WorkerRole
from router_core.testing.simulated_engine import SimulatedEngine

from .support import NO_MORE_CHECKS_S, ONE_ATTEMPT, CompletionWatch, Record, Router, _record, in_house, until

NEVER_S = 3600.0
PREFILL, DECODE = WorkerRole.PREFILL, WorkerRole.DECODE


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
    record = Record()
    token = _record.set(record)
    try:
        config = {
            "host": "127.0.0.1",
            "port": 0,
            "policy": policy,
            "pd": {
                "protocol": protocol,
                "options": options or {},
                "prefill": [{"url": each.url, "bootstrap_port": each.bootstrap_port or None} for each in prefills],
                "decode": [each.url for each in decodes],
            },
            "observers": ["metrics", in_house(CompletionWatch)],
            "health": {"interval_s": NO_MORE_CHECKS_S},
            "retries": ONE_ATTEMPT,
        }
        server = RouterServer(RouterConfig.model_validate(config | settings))
    finally:
        _record.reset(token)
    await server.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            pool = server.pool
            await until(
                lambda: len(pool.candidates(PREFILL)) == len(prefills) and len(pool.candidates(DECODE)) == len(decodes),
                "healthy workers",
            )
            yield PairRouter(server, record, session)
    finally:
        await server.stop()


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
