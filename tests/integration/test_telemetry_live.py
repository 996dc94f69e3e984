"""Engines are asked for their load when the policy needs it, and not otherwise."""

from __future__ import annotations

from router_core.api import hookimpl, least_loaded

from .support import in_house, running_router, until


class ByWaiting:
    """Go where the engine says fewest requests wait."""

    needs = frozenset({"telemetry"})

    @hookimpl
    def select_single(self, workers):
        told = [worker for worker in workers if worker.engine is not None]
        return least_loaded(told or workers)


QUICK = {"interval_s": 0.02, "timeout_s": 5}


async def test_nobody_is_polled_for_a_policy_that_does_not_need_it(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        await router.ask()
        assert router.server.pool.workers[0].engine is None
        assert "router_core_worker_telemetry_failures" not in await router.metrics()
        await router.settled(1)


async def test_a_policy_that_needs_it_sees_what_the_engine_says_and_metrics_say_how_fresh(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], policy=in_house(ByWaiting), telemetry=QUICK) as router,
    ):
        (worker,) = router.server.pool.workers
        await until(lambda: worker.engine is not None, "telemetry")
        assert (worker.engine.running_requests, worker.engine.waiting_requests) == (0, 0)
        assert await router.ask() == "engine"
        metrics = await router.metrics()
        (age,), (failures,) = (metrics[f"router_core_worker_telemetry_{name}"] for name in ("age_seconds", "failures"))
        assert age.labels == failures.labels == {"pool": "default", "worker": engine.url}
        assert age.value >= 0
        assert failures.value == 0
        await router.settled(1)


async def test_an_engine_that_tells_nothing_has_failures_and_no_age(simulated_engine):
    async with (
        simulated_engine(metrics_status=500) as engine,
        running_router([engine], policy=in_house(ByWaiting), telemetry=QUICK) as router,
    ):
        while (metrics := await router.metrics())["router_core_worker_telemetry_failures"][0].value < 2:
            pass
        assert "router_core_worker_telemetry_age_seconds" not in metrics
        assert await router.ask() == "engine"
        await router.settled(1)


async def test_a_worker_that_is_removed_is_polled_no_more(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], policy=in_house(ByWaiting), telemetry=QUICK) as router,
    ):
        await until(lambda: router.server.pool.workers[0].engine is not None, "telemetry")
        registration = router.server.registrations.registrations[0]
        async with router.session.delete(f"{router.url}/workers/{registration.id}") as response:
            assert response.status == 202
        assert "router_core_worker_telemetry_failures" not in await router.metrics()
