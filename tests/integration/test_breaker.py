"""A worker that answers its health checks and fails its requests gets none for a while, and is tried with care."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from router_core.contract.worker import Circuit
from router_core.testing.simulated_engine import Fault

from .pd_support import DECODE, PREFILL, pair
from .support import RawClient, chat, in_house, running_router, until
from .test_completions import Ordered

QUICK = {"failure_threshold": 3, "open_s": 0.05, "success_threshold": 2}
LONG = QUICK | {"open_s": 3600}


def circuit(router, number=0):
    return router.server.pool.workers[number].circuit


async def fail(router, times):
    for _ in range(times):
        async with router.post() as response:
            assert response.status >= 400
            await response.read()


@pytest.mark.parametrize("fault", [{"status": 500}, {"fault": Fault.CLOSE_BEFORE_HEAD}, {"fault": Fault.SHORT_BODY}])
async def test_a_worker_that_fails_while_its_checks_pass_gets_nothing_more(simulated_engines, fault):
    health = {"interval_s": 0.05}
    async with (
        simulated_engines(2) as engines,
        running_router(
            engines, policy=in_house(Ordered), breaker=LONG, health=health, retries={"max_attempts": 2}
        ) as router,
    ):
        bad = engines[0]
        for name, value in fault.items():
            setattr(bad, name, value)
        for _ in range(6):
            try:
                await router.ask()
            except aiohttp.ClientError:  # half an answer cannot be made up for
                assert fault == {"fault": Fault.SHORT_BODY}
        assert bad.accepted == 3
        assert circuit(router) is Circuit.OPEN
        assert router.server.pool.workers[0].is_healthy
        samples = await router.metrics()
        states = {s.labels["worker"]: s.value for s in samples["router_core_worker_circuit_state"]}
        assert states == {bad.url: 2, engines[1].url: 0}
        (opening,) = samples["router_core_worker_circuit_transitions_total"]
        assert (opening.labels, opening.value) == ({"worker": bad.url, "from": "closed", "to": "open"}, 1)
        async with router.get("/workers") as response:
            assert [worker["circuit"] for worker in (await response.json())["workers"]] == ["open", "closed"]
        async with router.get("/health?verbose") as response:
            facts = (await response.json())["pools"][0]["workers"]
            assert [worker["circuit"] for worker in facts] == ["open", "closed"]


@pytest.mark.parametrize("status", [400, 404])
async def test_the_clients_errors_do_not_open_it(simulated_engine, status):
    async with simulated_engine(status=status) as engine, running_router([engine], breaker=LONG) as router:
        await fail(router, 10)
        assert circuit(router) is Circuit.CLOSED


@pytest.mark.parametrize("status", [429, 503])
async def test_a_worker_that_is_full_does_not_open_it(simulated_engine, status):
    async with (
        simulated_engine(token_interval_s=0.05) as engine,
        running_router([engine], breaker=LONG) as router,
        router.post(body=chat(stream=True, max_tokens=3000)) as running,
    ):
        await running.content.readany()
        engine.status = status
        await fail(router, 10)
        assert circuit(router) is Circuit.CLOSED


async def test_with_all_circuits_open_the_client_is_told_when_to_come_again(simulated_engine):
    async with simulated_engine(status=500) as engine, running_router([engine], breaker=LONG) as router:
        await fail(router, 3)
        async with router.post() as response:
            assert response.status == 503
            assert 3590 <= int(response.headers["retry-after"]) <= 3600
            error = (await response.json())["error"]
            assert error["code"] == "no_available_workers"
            assert "1 with an open circuit" in error["message"]
        async with router.get("/readiness") as response:
            assert response.status == 503
        assert engine.accepted == 3


async def test_it_closes_again_once_requests_succeed(simulated_engine):
    async with (
        simulated_engine(status=500, faults_left=4) as engine,
        running_router([engine], breaker=QUICK) as router,
    ):
        await fail(router, 3)
        await until(lambda: circuit(router) is Circuit.HALF_OPEN, "half open")
        await fail(router, 1)  # the one that is let through fails: open again
        await until(lambda: circuit(router) is Circuit.HALF_OPEN, "half open again")
        assert [await router.ask(), circuit(router)] == ["engine", Circuit.HALF_OPEN]
        assert [await router.ask(), circuit(router)] == ["engine", Circuit.CLOSED]


async def test_half_open_lets_one_request_through_at_a_time(simulated_engine):
    async with (
        simulated_engine(status=500, faults_left=3) as engine,
        running_router([engine], breaker=QUICK) as router,
    ):
        await fail(router, 3)
        await until(lambda: circuit(router) is Circuit.HALF_OPEN)
        engine.ttft_s = 0.3
        first = asyncio.ensure_future(router.ask())
        await engine.wait_running()
        async with router.post() as response:
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert await first == "engine"
        assert await router.ask() == "engine"
        assert circuit(router) is Circuit.CLOSED


async def test_a_client_that_leaves_the_request_let_through_gives_its_place_back(simulated_engine):
    async with (
        simulated_engine(status=500, faults_left=3) as engine,
        running_router([engine], breaker=QUICK) as router,
    ):
        await fail(router, 3)
        await until(lambda: circuit(router) is Circuit.HALF_OPEN)
        engine.fault = Fault.HANG
        async with await RawClient.connect(router.url) as client:
            client.send()
            await engine.wait_running()
            assert circuit(router) is Circuit.PROBING
            client.hang_up()
        await until(lambda: circuit(router) is Circuit.HALF_OPEN)
        engine.fault = None
        assert await router.ask() == "engine"


async def test_a_worker_that_died_and_came_back_is_tried_at_once(simulated_engine):
    health = {"interval_s": 0.05, "failure_threshold": 1}
    async with (
        simulated_engine(status=500, faults_left=3) as engine,
        running_router([engine], breaker=LONG, health=health) as router,
    ):
        await fail(router, 3)
        assert circuit(router) is Circuit.OPEN
        engine.health_status = 500
        await until(lambda: not router.server.pool.workers[0].is_healthy)
        engine.health_status = 200
        await until(lambda: circuit(router) is Circuit.CLOSED)
        assert await router.ask() == "engine"


async def test_a_restart_with_streams_opens_no_circuit_and_costs_new_requests_nothing(simulated_engines):
    """With the health checks' own times: nothing but the lost streams tells that an engine is gone."""
    async with (
        simulated_engines(3, token_interval_s=0.05) as engines,
        running_router(engines, policy="round_robin", health={"interval_s": 60}) as router,
    ):
        workers = router.server.pool.workers
        await until(lambda: all(worker.is_healthy for worker in workers))
        for number, engine in enumerate(engines[:2]):
            streams = [await router.post(body=chat(stream=True, max_tokens=3000)) for _ in range(36)]
            for stream in streams:
                await stream.content.readany()
            await engine.stop()
            for _ in range(6):
                await router.ask()
            await until(lambda: not workers[number].is_healthy, "found dead")  # noqa: B023
            await engine.start()
            await until(lambda: workers[number].is_healthy, "found well")  # noqa: B023
            assert {worker.circuit for worker in workers} == {Circuit.CLOSED}
            assert engine.name in [await router.ask() for _ in range(3)]
            for stream in streams:
                stream.close()


async def test_an_engine_that_is_back_before_any_check_sees_it_gone_keeps_its_requests(simulated_engine):
    async with (
        simulated_engine(token_interval_s=0.05) as engine,
        running_router([engine], breaker=LONG, health={"enabled": False}) as router,
    ):
        streams = [await router.post(body=chat(stream=True, max_tokens=3000)) for _ in range(10)]
        for stream in streams:
            await stream.content.readany()
        await engine.stop()
        await engine.start()
        await router.settled(10)
        assert circuit(router) is Circuit.CLOSED
        assert await router.ask() == "engine"
        for stream in streams:
            stream.close()


async def test_a_well_engine_that_resets_one_connection_stays_in_use(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy=in_house(Ordered), retries={}, health={"failure_threshold": 1}) as router,
    ):
        engines[0].fault, engines[0].faults_left = Fault.CLOSE_BEFORE_HEAD, 1
        probes = engines[0].probes
        assert await router.ask() == "b"
        await engines[0].wait_probed(probes + 1)
        assert [await router.ask(), router.server.pool.workers[0].is_healthy] == ["a", True]


@pytest.mark.parametrize("role", [PREFILL, DECODE])
async def test_only_the_leg_that_failed_opens_its_workers_circuit(role):
    async with pair(**{role.value: {"status": 500}}, breaker=LONG) as (_prefill, _decode, router):
        await fail(router, 3)
        other = DECODE if role is PREFILL else PREFILL
        assert router.worker(role).circuit is Circuit.OPEN
        assert router.worker(other).circuit is Circuit.CLOSED
        async with router.post() as response:
            assert response.status == 503
            assert "retry-after" in response.headers


async def test_legs_of_a_client_that_left_open_nothing():
    async with pair(decode={"fault": Fault.HANG}, breaker=LONG, options={"linger_s": 0.05}) as (_, decode, router):
        for number in range(4):
            async with await RawClient.connect(router.url) as client:
                client.send(chat(stream=True))
                await decode.wait_accepted(number + 1)
                client.hang_up()
        await until(router.is_settled)
        assert {worker.circuit for worker in router.server.pool.workers} == {Circuit.CLOSED}


async def test_a_worker_that_refuses_everything_at_once_does_not_draw_the_traffic_to_it(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy="least_loaded", breaker={"failure_threshold": 3, "open_s": 3600}) as router,
    ):
        engines[0].status = 503
        for _ in range(20):
            async with router.post() as response:
                await response.read()
        assert circuit(router) is Circuit.OPEN
        assert engines[0].accepted == 3
        for _ in range(5):
            await router.ask()
