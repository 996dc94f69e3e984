"""The metrics of a worker that has left go with its last request, and begin afresh if it returns."""

from __future__ import annotations

import asyncio

from router_core.contract.worker import Worker
from router_core.testing.simulated_engine import Fault
from tests.integration.support import running_router, until

COUNTED = ("router_core_requests_total", "router_core_policy_decisions_total", "router_core_completion_tokens_total")


async def counted(router, url):
    """Return the figures of a worker by metric, and check that they are there together or not at all."""
    metrics = await router.metrics()
    figures = {
        name: sum(sample.value for sample in metrics.get(name, ()) if sample.labels["worker"] == url)
        for name in COUNTED
        if any(sample.labels["worker"] == url for sample in metrics.get(name, ()))
    }
    assert len(figures) in (0, len(COUNTED)), figures
    return figures


async def test_series_of_a_worker_that_left_are_gone_and_start_afresh_when_it_returns(simulated_engines):
    async with simulated_engines(2) as engines, running_router(engines) as router:
        gone, stays = (engine.url for engine in engines)
        for _ in range(6):
            await router.ask()
        before = await counted(router, stays)
        assert before["router_core_requests_total"] == 3
        router.server.pool.remove(gone)
        assert await counted(router, gone) == {}
        assert await counted(router, stays) == before
        router.server.pool.add(Worker(gone, is_healthy=True))
        for _ in range(4):
            await router.ask()
        assert (await counted(router, gone))["router_core_requests_total"] == 2
        assert (await counted(router, stays))["router_core_requests_total"] == 5


async def test_it_starts_afresh_even_if_nobody_scraped_while_it_was_away(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        for _ in range(3):
            await router.ask()
        router.server.pool.remove(engine.url)
        router.server.pool.add(Worker(engine.url, is_healthy=True))
        await router.ask()
        assert (await counted(router, engine.url))["router_core_requests_total"] == 1


async def test_requests_that_still_run_on_it_are_counted_before_its_series_go(simulated_engine):
    engine = simulated_engine()
    async with engine, running_router([engine]) as router:
        await router.ask()
        engine.fault = Fault.HANG
        waiting = asyncio.ensure_future(router.ask())
        await until(lambda: router.load()[0][0] == 1, "a request under way")
        worker = router.server.pool.workers[0]
        router.server.pool.remove(worker.url)
        assert (await counted(router, worker.url))["router_core_requests_total"] == 1, "one is still to come"
        waiting.cancel()
        await until(lambda: worker.load == 0, "its end")
        assert await counted(router, worker.url) == {}
        # What the observer kept for that last request must not swallow what comes now.
        engine.fault = None
        router.server.pool.add(Worker(worker.url, is_healthy=True))
        await router.ask()
        assert (await counted(router, worker.url))["router_core_requests_total"] == 1


async def test_one_that_returns_while_requests_run_on_it_has_never_been_away(simulated_engine):
    engine = simulated_engine()
    async with engine, running_router([engine]) as router:
        await router.ask()
        engine.fault = Fault.HANG
        waiting = asyncio.ensure_future(router.ask())
        await until(lambda: router.load()[0][0] == 1, "a request under way")
        router.server.pool.remove(engine.url)
        router.server.pool.add(Worker(engine.url, is_healthy=True))
        waiting.cancel()
        await until(lambda: router.load()[0][0] == 0, "its end")
        assert (await counted(router, engine.url))["router_core_requests_total"] == 2


async def test_a_fleet_whose_addresses_change_does_not_fill_the_metrics(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        await router.ask()
        for number in range(1000):
            url = f"http://10.0.{number // 250}.{number % 250}:8000"
            router.server.registry.count("requests_total", 1, labels_of(url))
            router.server.pool.add(Worker(url))
            router.server.pool.remove(url)
        family = router.server.registry._families["router_core_requests_total"]
        assert 1 < len(family.series) < 300, "they go even if nobody scrapes"
        assert len((await router.metrics())["router_core_requests_total"]) == 1


def labels_of(url):
    return {"pool": "default", "plugin": "metrics", "worker": url, "status": "success", "leg": "single"}
