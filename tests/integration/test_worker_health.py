"""Workers that fail their checks get nothing; those that answer checks but hang are nobody's favourites for long."""

from __future__ import annotations

import pytest

from router_core.testing.simulated_engine import Fault

from .support import in_house, running_router, until
from .test_policies_live import LeastLoaded

QUICK_CHECKS = {"interval_s": 0.05, "timeout_s": 0.2, "failure_threshold": 2, "success_threshold": 2}


def make_ill(engine, how):
    if how == "status":
        engine.health_status = 500
    else:
        engine.health_hangs = True


@pytest.mark.parametrize("how", ["status", "hangs"])
async def test_a_worker_that_fails_its_checks_gets_nothing_until_it_is_well_again(simulated_engines, how):
    async with simulated_engines(2) as engines, running_router(engines, health=QUICK_CHECKS) as router:
        ill, well = engines
        assert {await router.ask() for _ in range(4)} == {"a", "b"}

        make_ill(ill, how)
        await until(lambda: len(router.server.pool.candidates()) == 1, "one candidate")
        accepted = ill.accepted
        assert {await router.ask() for _ in range(4)} == {well.name}
        assert ill.accepted == accepted
        health = {s.labels["worker"]: s.value for s in (await router.metrics())["router_core_worker_health"]}
        assert health == {ill.url: 0, well.url: 1}

        ill.health_status, ill.health_hangs = 200, False
        await until(lambda: len(router.server.pool.candidates()) == 2, "two candidates")
        assert {await router.ask() for _ in range(4)} == {"a", "b"}
        await router.settled(12)


async def test_requests_running_on_a_worker_that_becomes_unhealthy_are_finished(simulated_engine):
    async with (
        simulated_engine(token_interval_s=0.005) as engine,
        running_router([engine], health=QUICK_CHECKS) as router,
    ):
        async with router.post(
            body={"messages": [{}], "stream": True, "max_tokens": 200, "ignore_eos": True}
        ) as response:
            await response.content.readuntil(b"\n\n")
            engine.health_status = 500
            await until(lambda: not router.server.pool.candidates(), "no candidate")
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        (outcome,) = await router.settled(1)
        assert outcome.status == "success"


async def test_a_worker_that_hangs_but_answers_checks_fills_up_and_is_avoided_by_load(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy=in_house(LeastLoaded), limits={"request_timeout_s": 0.3}) as router,
    ):
        hanging = engines[0]
        hanging.fault = Fault.HANG
        first = router.post()
        second = router.post()
        async with first as one, second as two:
            statuses = sorted((one.status, two.status))
        assert statuses == [200, 504]
        assert len(router.server.pool.candidates()) == 2
        outcomes = await router.settled(2)
        assert sorted(outcome.status for outcome in outcomes) == ["success", "timeout"]
        await hanging.wait_for_abort()


async def test_a_refused_request_makes_the_router_look_at_once(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, health={"interval_s": 86400, "failure_threshold": 1}) as router,
    ):
        await engines[0].stop()
        assert {await router.ask() for _ in range(2)} == {"b"}  # one of the two was refused
        await until(lambda: len(router.server.pool.candidates()) == 1, "one candidate")
