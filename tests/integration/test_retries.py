"""A request that failed before its answer began is served elsewhere; the client hears of the last failure alone."""

from __future__ import annotations

import asyncio

import pytest

from router_core.contract.worker import Worker
from router_core.testing.scripted_server import Close, Pause, Read, Reset, ScriptedServer, Send, WaitForPeer, answer
from router_core.testing.simulated_engine import Fault

from .support import CHAT, RawClient, chat, in_house, running_router, until
from .test_completions import Ordered, facts
from .test_streaming import worker_script

DEFAULTS = {}
SOON = {"initial_backoff_s": 0.001}
BUSY = answer(b'{"error": "busy"}', status=503, headers="content-type: application/json\r\nretry-after: 1\r\n")


def of_attempts(outcomes):
    return [(outcome.status, outcome.http_status, outcome.attempt) for outcome in outcomes]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_is_answered_by_another_worker(simulated_engines, status, stream):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy=in_house(Ordered), retries=SOON) as router,
    ):
        engines[0].status = status
        async with router.post(body=chat(stream=stream)) as response:
            assert response.status == 200
            assert response.headers["x-simulated-engine"] == "b"
            await response.read()
        first, second = await router.settled(2)
        assert (first.http_status, first.attempt) == (status, 1)
        assert (second.status, second.http_status, second.attempt) == ("success", 200, 2)
        assert len({completion.request.id for completion in router.record.completed}) == 1
        assert len(router.record.first_tokens) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 501])
async def test_other_errors_go_to_the_client_as_they_are(simulated_engines, status):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy=in_house(Ordered), retries=DEFAULTS) as router,
    ):
        engines[0].status = status
        async with router.post() as response:
            assert response.status == status
        await router.settled(1)


@pytest.mark.parametrize("ending", [Close(), Reset()])
async def test_a_connection_lost_before_the_answer_is_made_up_for_elsewhere(simulated_engine, ending):
    half_a_head = Send(b"HTTP/1.1 200 OK\r\ncontent-le")
    async with (
        ScriptedServer(worker_script([Read(), half_a_head, ending])) as worker,
        simulated_engine() as engine,
        running_router([worker, engine], policy=in_house(Ordered), retries=DEFAULTS) as router,
    ):
        assert await router.ask() == "engine"
        assert of_attempts(await router.settled(2)) == [("error", None, 1), ("success", 200, 2)]


async def test_a_broken_answer_is_not_asked_for_again(simulated_engine):
    script = worker_script([Read(), Send(b"garbage\r\n\r\n"), WaitForPeer()])
    async with (
        ScriptedServer(script) as worker,
        simulated_engine() as engine,
        running_router([worker, engine], policy=in_house(Ordered), retries=DEFAULTS) as router,
    ):
        async with router.post() as response:
            assert response.status == 502
        await router.settled(1)


async def test_the_last_workers_own_answer_is_the_clients_to_the_byte():
    body = b'{"error": {"message": "out of memory", "code": 7}}'
    mine = answer(body, status=500, headers="content-type: application/json\r\nx-engine: first\r\n")
    last = answer(body, status=502, headers="content-type: application/json\r\nx-engine: last\r\n")
    async with (
        ScriptedServer(worker_script([Read(), mine, WaitForPeer()])) as first,
        ScriptedServer(worker_script([Read(), last, WaitForPeer()])) as second,
        running_router([first, second], policy=in_house(Ordered), retries=SOON | {"max_attempts": 2}) as router,
    ):
        async with router.post() as response:
            assert (response.status, await response.read()) == (502, body)
            assert response.headers["x-engine"] == "last"
        assert [outcome.http_status for outcome in await router.settled(2)] == [500, 502]


async def test_an_answer_that_was_kept_back_is_given_when_no_better_one_comes():
    """The second worker hangs up on each request, so what the first one said is all there is."""
    chunks = b'3\r\n{"a\r\n5\r\n": 1}\r\n0\r\n\r\n'
    mine = Send(b"HTTP/1.1 503 Busy\r\nX-Engine: first\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    async with (
        ScriptedServer(worker_script([Read(), mine, Close()])) as first,
        ScriptedServer(worker_script([Read(), Close()])) as second,
        running_router([first, second], policy=in_house(Ordered), retries=SOON | {"max_attempts": 2}) as router,
    ):
        async with await RawClient.connect(router.url) as client:
            client.send()
            status, body = await client.read_answer()
            assert (status, body) == (503, b'{"a": 1}')
            client.send()
            assert (await client.read_answer())[0] == 503  # the connection goes on
        await router.settled(4)


async def test_each_worker_is_tried_once_before_any_is_tried_again(simulated_engines):
    async with (
        simulated_engines(3) as engines,
        running_router(engines, policy=in_house(Ordered), retries=SOON | {"max_attempts": 5}) as router,
    ):
        for engine in engines:
            engine.status = 500
        async with router.post() as response:
            assert response.status == 500
        assert router.record.selected[:3] == [engine.url for engine in engines]
        await router.settled(5)


async def test_a_request_that_kills_its_workers_kills_no_more_of_them_than_it_has_attempts(simulated_engines):
    """On a kept connection, too: that a dead worker cannot be reached any more does not mean that nothing was sent."""
    async with (
        simulated_engines(5) as engines,
        running_router(engines, retries={"max_attempts": 3, "initial_backoff_s": 0.001}) as router,
    ):
        for _ in engines:
            await router.ask()  # from now on each has a kept connection
        dead = []

        async def dies(engine):
            await engine.wait_running()
            dead.append(engine)
            await engine.stop()

        for engine in engines:
            engine.ttft_s = 3600
        deaths = [asyncio.ensure_future(dies(engine)) for engine in engines]
        async with router.post() as response:
            assert response.status == 502
        for death in deaths:
            death.cancel()
        await asyncio.gather(*deaths, return_exceptions=True)
        assert len(dead) == 3


async def test_one_worker_alone_is_asked_again_after_a_pause(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], retries=SOON) as router:
        engine.status, engine.faults_left = 503, 2
        assert await router.ask() == "engine"
        assert of_attempts(await router.settled(3)) == [
            ("backpressure", 503, 1),
            ("backpressure", 503, 2),
            ("success", 200, 3),
        ]


async def test_the_workers_connection_is_kept_after_an_answer_nobody_wanted(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], retries=SOON) as router:
        await router.ask()
        connections = engine.connections
        engine.status, engine.faults_left = 500, 1
        await router.ask()
        assert engine.connections == connections
        await router.settled(3)


async def test_an_endless_answer_nobody_wants_is_cut_and_holds_nothing_up(simulated_engine):
    head = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = [Read(), Send(head), *[Send(b"400\r\n" + b"x" * 1024 + b"\r\n")] * 200, WaitForPeer()]
    async with (
        ScriptedServer(worker_script(endless)) as worker,
        simulated_engine() as engine,
        running_router([worker, engine], policy=in_house(Ordered), retries=DEFAULTS) as router,
    ):
        assert await router.ask() == "engine"
        await router.settled(2)
        await worker.wait_closed(3)


async def test_a_slow_answer_nobody_wants_is_not_waited_for(simulated_engine):
    head = b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\nhalf"
    async with (
        ScriptedServer(worker_script([Read(), Send(head), WaitForPeer()])) as worker,
        simulated_engine() as engine,
        running_router([worker, engine], policy=in_house(Ordered), retries=DEFAULTS) as router,
    ):
        assert await router.ask() == "engine"
        await router.settled(2)
        await worker.wait_closed(3)


async def test_retry_after_is_waited_for_when_there_is_nobody_else():
    scripts = {2: [Read(), BUSY, Close()], 3: [Read(), answer(b"{}"), Close()]}
    async with (
        ScriptedServer(lambda index: worker_script(scripts.get(index))(index)) as worker,
        running_router([worker], retries=SOON) as router,
    ):
        began = asyncio.get_running_loop().time()
        async with router.post() as response:
            assert response.status == 200
        assert asyncio.get_running_loop().time() - began >= 0.9  # a second, by a clock in milliseconds
        await router.settled(2)


async def test_a_retry_after_behind_the_deadline_is_the_clients_to_wait_for():
    async with (
        ScriptedServer(worker_script([Read(), BUSY, Close()])) as worker,
        running_router([worker], retries=SOON, limits={"request_timeout_s": 0.9}) as router,
    ):
        async with router.post() as response:
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        await router.settled(1)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_longer_than_the_longest_pause_is_the_clients_to_wait_for(status):
    later = answer(b"{}", status=status, headers="content-type: application/json\r\nretry-after: 120\r\n")
    async with (
        ScriptedServer(worker_script([Read(), later, Close()])) as first,
        ScriptedServer(worker_script([Read(), later, Close()])) as second,
        running_router([first, second], retries={"budget_floor": 1, "budget_share": 0}) as router,
    ):
        for _ in range(3):
            async with router.post() as response:
                assert (response.status, response.headers["retry-after"]) == (status, "120")
        assert of_attempts(await router.settled(6))[:2] == [("backpressure", status, 1), ("backpressure", status, 2)]
        retries = router.server.pools[-1].dispatcher.retries
        assert (retries.refused["retry_after"], len(retries.retrying)) == (3, 0)


async def test_requests_that_wait_as_a_worker_wishes_take_nothing_from_others(simulated_engine):
    wait = answer(b"{}", status=503, headers="retry-after: 20\r\n")
    budget = {"budget_floor": 1, "budget_share": 0}
    async with (
        ScriptedServer(worker_script([Read(), wait, Close()])) as full,
        running_router([full], policy=in_house(Ordered), retries=budget, breaker={"enabled": False}) as router,
    ):
        clients = [await RawClient.connect(router.url) for _ in range(5)]
        for client in clients:
            client.send()
        await router.settled(5)
        async with simulated_engine() as engine:
            router.server.pool.add(Worker(engine.url))
            assert await router.ask() == "engine"  # the first worker is full, the second is not
        for client in clients:
            client.hang_up()
        await until(router.is_settled)


async def test_a_stream_that_has_begun_takes_nothing_from_others(simulated_engines):
    budget = SOON | {"budget_floor": 1, "budget_share": 0}
    async with (
        simulated_engines(2, token_interval_s=0.05) as engines,
        running_router(engines, policy=in_house(Ordered), retries=budget, breaker={"enabled": False}) as router,
    ):
        engines[0].status = 500
        async with router.post(body=chat(stream=True, max_tokens=3000)) as running:
            await running.content.readany()
            async with router.post(body=chat(stream=True, max_tokens=3000)) as another:
                assert another.status == 200
        await until(router.is_settled)


async def test_a_client_that_leaves_between_two_attempts_ends_it(simulated_engine):
    async with (
        simulated_engine(status=500) as engine,
        running_router([engine], retries={"initial_backoff_s": 1000, "max_backoff_s": 1000}) as router,
    ):
        async with await RawClient.connect(router.url) as client:
            client.send()
            await router.settled(1)
            assert not router.load()[0][0]
        retries = router.server.pools[-1].dispatcher.retries
        await until(lambda: not retries.retrying, "the request is forgotten")
        engine.status = 200
        await router.ask()
        await router.settled(2)
        assert engine.accepted == 2


async def test_the_time_for_the_whole_request_ends_the_waiting_too(simulated_engine):
    async with simulated_engine(status=500) as engine:
        settings = {"retries": {"initial_backoff_s": 0.3, "jitter": 0}, "limits": {"request_timeout_s": 0.5}}
        async with running_router([engine], **settings) as router:
            async with router.post() as response:
                assert response.status == 500  # what the worker said, not that time ran out
            await until(lambda: len(router.record.completed) >= 2)
            assert router.is_settled()


async def test_unknown_paths_are_sent_again_only_if_nothing_was_sent_or_it_is_safe(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy=in_house(Ordered), retries=SOON, proxy_unknown_paths=True) as router,
    ):
        engines[0].status = 500
        async with router.post("/v1/fine_tuning/jobs") as response:
            assert response.status in (404, 500)
        await router.settled(1)


async def test_an_outage_is_not_multiplied(simulated_engines):
    budget = {"initial_backoff_s": 0.05, "budget_floor": 2, "budget_share": 0, "max_attempts": 5}
    async with (
        simulated_engines(2) as engines,
        running_router(engines, retries=budget, breaker={"enabled": False}) as router,
    ):
        for engine in engines:
            engine.status = 500

        async def one():
            async with router.post(CHAT) as response:
                assert response.status == 500
                await response.read()

        await asyncio.gather(*(one() for _ in range(40)))
        assert sum(engine.accepted for engine in engines) <= 40 + 4 * 20
        retries = router.server.pools[-1].dispatcher.retries
        assert retries.refused["budget"] > 0
        samples = await router.metrics()
        results = {s.labels["result"]: s.value for s in samples["router_core_retried_requests_total"]}
        assert (results["served"], results["cancelled"], 0 < results["failed"] <= 20) == (0, 0, True)
        assert not retries.retrying
        assert router.is_settled()
        assert len(router.record.completed) == len(router.record.selected) == sum(e.accepted for e in engines)


async def test_a_request_on_a_worker_found_dead_is_served_elsewhere(simulated_engines):
    """A machine that is gone neither answers nor closes its connections."""
    health = {"interval_s": 0.05, "timeout_s": 0.2, "failure_threshold": 1}
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy=in_house(Ordered), health=health, retries=DEFAULTS) as router,
    ):
        dead = engines[0]
        dead.fault = Fault.HANG
        asked = asyncio.ensure_future(router.ask())
        await dead.wait_running()
        dead.health_hangs = True
        assert await asked == "b"
        assert [facts(outcome)[::3] for outcome in await router.settled(2)] == [("error", 1), ("success", 2)]
        await dead.wait_for_abort()


async def test_a_request_whose_only_worker_is_found_dead_is_left_to_it(simulated_engine):
    health = {"interval_s": 0.05, "failure_threshold": 1}
    async with (
        simulated_engine(ttft_s=1.0) as engine,
        running_router([engine], health=health, retries=DEFAULTS) as router,
    ):
        asked = asyncio.ensure_future(router.ask())
        await engine.wait_running()
        engine.health_status = 500
        await until(lambda: not router.server.pool.candidates(), "no candidate")
        assert await asked == "engine"  # its checks were wrong
        await router.settled(1)


async def test_nothing_is_sent_again_once_the_answer_has_begun(simulated_engine):
    gate = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
    async with (
        ScriptedServer(worker_script([Read(), Send(head), Pause(event=gate), Reset()])) as worker,
        simulated_engine() as engine,
        running_router([worker, engine], policy=in_house(Ordered), retries=DEFAULTS) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send()
        await client.read_head()
        gate.set()
        assert await client.read_rest() == b""
        await router.settled(1)
        assert engine.accepted == 0
