"""Each selection has exactly one completion, which says how it ended, and leaves no load behind."""

from __future__ import annotations

import contextlib
import socket

import aiohttp
import orjson
import pytest

from router_core.api import hookimpl
from router_core.testing.scripted_server import Close, Read, Reset, ScriptedServer, Send, WaitForPeer
from router_core.testing.simulated_engine import Fault

from .support import RawClient, chat, in_house, running_router, until
from .test_streaming import HEAD, chunk, worker_script

SOON = {"request_timeout_s": 0.1}


class Ordered:
    """Takes the first candidate, in the order of the config."""

    @hookimpl
    def select_single(self, workers):
        return workers[0]


def closed_port_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def deaf_url():
    """A listener whose queue is full: connections to it are neither accepted nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def declare_healthy(router):
    """Admit workers no health check would admit."""
    for worker in router.server.pool.workers:
        router.server.pool.declare_models(worker, ["simulated-model"])
        router.server.pool.set_health(worker, True)


def facts(outcome):
    return outcome.status, outcome.http_status, outcome.leg, outcome.attempt


# --- the engine answers ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("repeated", [1, 2])
async def test_success_has_the_engines_token_figures(simulated_engine, stream, repeated):
    body = chat("Tell me more. " * 100, stream=stream, stream_options={"include_usage": True})
    async with simulated_engine() as engine, running_router([engine]) as router:
        for _ in range(repeated):
            async with router.post(body=body) as response:
                data = await response.read()
        outcomes = await router.settled(repeated)
        outcome = outcomes[-1]
        assert facts(outcome) == ("success", 200, "single", 1)
        assert 0 < outcome.ttft_s <= outcome.duration_s
        last = data.rpartition(b"data: {")[2].partition(b"\n")[0] if stream else data[1:]
        usage = orjson.loads(b"{" + last)["usage"]
        assert outcome.prompt_tokens == usage["prompt_tokens"]
        assert outcome.completion_tokens == usage["completion_tokens"] == 16
        assert outcome.cached_tokens == usage["prompt_tokens_details"]["cached_tokens"]
        assert (outcome.cached_tokens > 0) is (repeated > 1)


async def test_stream_without_usage_has_no_token_figures(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        async with router.post(body=chat(stream=True)) as response:
            await response.read()
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("success", 200, "single", 1)
        assert (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens) == (None, None, None)


@pytest.mark.parametrize(
    ("http_status", "status", "is_success"),
    [
        (400, "client_error", True),
        (404, "client_error", True),
        (429, "backpressure", False),
        (503, "backpressure", False),
        (500, "error", False),
        (502, "error", False),
    ],
)
async def test_an_engines_status_says_whose_fault_it_was(simulated_engine, http_status, status, is_success):
    async with simulated_engine(status=http_status) as engine, running_router([engine]) as router:
        async with router.post() as response:
            assert response.status == http_status
            await response.read()
        (outcome,) = await router.settled(1)
        assert facts(outcome) == (status, http_status, "single", 1)
        assert outcome.is_success is is_success
        assert (outcome.prompt_tokens, outcome.completion_tokens) == (None, None)
        assert router.record.first_tokens == []
        assert engine.accepted == 1  # an answer, of whatever kind, is not asked for again


# --- the connection fails ---


async def test_connection_lost_before_the_head_is_502(simulated_engine):
    async with simulated_engine(fault=Fault.CLOSE_BEFORE_HEAD) as engine, running_router([engine]) as router:
        async with router.post() as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "upstream_connection_lost"
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("error", None, "single", 1)
        assert outcome.ttft_s is None
        assert engine.accepted == 1  # it may have been computed: never sent twice


async def test_connection_lost_in_mid_answer_breaks_the_client_off(simulated_engine):
    async with simulated_engine(fault=Fault.SHORT_BODY) as engine, running_router([engine]) as router:
        async with router.post() as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("error", 200, "single", 1)
        assert outcome.ttft_s is not None


@pytest.mark.parametrize("ending", [Close(), Reset()])
async def test_stream_cut_after_its_head_is_an_error_without_first_token(ending):
    async with (
        ScriptedServer(worker_script([Read(), Send(HEAD), ending])) as worker,
        running_router([worker]) as router,
    ):
        async with router.post(body=chat(stream=True)) as response:
            assert b'"code":"upstream_connection_lost"' in await response.read()
            assert response.status in {200, 502}  # a reset may outrun the head
        (outcome,) = await router.settled(1)
        assert (outcome.status, outcome.http_status) in {("error", 200), ("error", None)}
        assert outcome.ttft_s is None


@pytest.mark.parametrize(
    "data",
    [
        b"HELLO THERE\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_502(data):
    async with (
        ScriptedServer(worker_script([Read(), Send(data), WaitForPeer()])) as worker,
        running_router([worker]) as router,
    ):
        async with router.post() as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "upstream_bad_answer"
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("error", None, "single", 1)
        await worker.wait_closed(3)


async def test_broken_chunks_break_the_client_off():
    data = HEAD + chunk(b"data: one\n\n") + b"nonsense\r\n"
    async with (
        ScriptedServer(worker_script([Read(), Send(data), WaitForPeer()])) as worker,
        running_router([worker]) as router,
    ):
        with pytest.raises(aiohttp.ClientError):
            async with router.post(body=chat(stream=True)) as response:
                await response.read()
        (outcome,) = await router.settled(1)
        assert outcome.status == "error"
        await worker.wait_closed(3)


# --- time runs out ---


async def test_an_engine_that_never_answers_is_504_and_sees_its_client_go(simulated_engine):
    async with simulated_engine(fault=Fault.HANG) as engine, running_router([engine], limits=SOON) as router:
        async with router.post() as response:
            assert response.status == 504
            assert (await response.json())["error"]["code"] == "upstream_timeout"
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("timeout", None, "single", 1)
        assert outcome.ttft_s is None
        await engine.wait_for_abort()
        engine.fault = None
        assert await router.ask() == "engine"  # it answers health checks, so it is still a candidate


async def test_a_stream_without_end_is_ended_in_time(simulated_engine):
    endless = chat(stream=True, max_tokens=100_000, ignore_eos=True)
    async with simulated_engine(token_interval_s=0.02) as engine, running_router([engine], limits=SOON) as router:
        async with router.post(body=endless) as response:
            assert response.status == 200
            assert b'"code":"upstream_timeout"' in await response.read()
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("timeout", 200, "single", 1)
        assert outcome.ttft_s is not None
        await engine.wait_for_abort()


# --- the client goes ---


async def test_client_that_hangs_up_before_the_head_cancels(simulated_engine):
    async with simulated_engine(fault=Fault.HANG) as engine, running_router([engine]) as router:
        client = await RawClient.connect(router.url)
        client.send()
        await engine.wait_running()
        assert router.load()[0][0] == 1
        client.hang_up()
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("cancelled", None, "single", 1)
        assert not outcome.is_success
        await engine.wait_for_abort()


async def test_client_that_closes_in_good_order_cancels_too(simulated_engine):
    async with simulated_engine(fault=Fault.HANG) as engine, running_router([engine]) as router:
        client = await RawClient.connect(router.url)
        client.send()
        await engine.wait_running()
        client.writer.close()
        (outcome,) = await router.settled(1)
        assert outcome.status == "cancelled"
        await engine.wait_for_abort()


async def test_client_that_hangs_up_in_mid_stream_cancels(simulated_engine):
    endless = chat(stream=True, max_tokens=100_000, ignore_eos=True)
    async with simulated_engine(token_interval_s=0.005) as engine, running_router([engine]) as router:
        client = await RawClient.connect(router.url)
        client.send(endless)
        await client.read_until(b"content")
        worker = router.server.pool.workers[0]
        await until(lambda: worker.decode_tokens > 0)
        assert worker.pending_prompt_tokens == 0
        client.hang_up()
        (outcome,) = await router.settled(1)
        assert facts(outcome) == ("cancelled", 200, "single", 1)
        assert outcome.ttft_s is not None
        await engine.wait_for_abort()


async def test_client_that_hangs_up_before_the_worker_is_connected_cancels():
    with deaf_url() as url:
        async with running_router([url], expect_healthy=0) as router:
            declare_healthy(router)
            client = await RawClient.connect(router.url)
            client.send()
            await until(lambda: router.record.selected, "a selection")
            client.hang_up()
            (outcome,) = await router.settled(1)
            assert facts(outcome) == ("cancelled", None, "single", 1)


async def test_client_that_hangs_up_while_sending_was_never_routed(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        client = await RawClient.connect(router.url)
        client.writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: r\r\ncontent-length: 100\r\n\r\n{")
        await client.writer.drain()
        client.hang_up()
        await router.ask()
        await router.settled(1)
        assert engine.accepted == 1


# --- another worker is tried ---


async def test_refused_connection_is_tried_elsewhere_and_both_attempts_complete(simulated_engine):
    async with simulated_engine() as engine:
        dead = closed_port_url()
        async with running_router([dead, engine], policy=in_house(Ordered), expect_healthy=1) as router:
            declare_healthy(router)
            assert await router.ask() == "engine"
            first, second = await router.settled(2)
            assert facts(first) == ("error", None, "single", 1)
            assert facts(second) == ("success", 200, "single", 2)
            assert router.record.selected == [dead, engine.url]
            assert len({completion.request.id for completion in router.record.completed}) == 1


async def test_unanswered_connection_is_tried_elsewhere(simulated_engine):
    with deaf_url() as deaf:
        async with simulated_engine() as engine:
            limits = {"connect_timeout_s": 0.1}
            async with running_router(
                [deaf, engine], policy=in_house(Ordered), expect_healthy=1, limits=limits
            ) as router:
                declare_healthy(router)
                assert await router.ask() == "engine"
                assert [facts(outcome)[::3] for outcome in await router.settled(2)] == [("error", 1), ("success", 2)]


async def test_when_all_refuse_each_is_tried_once_and_the_client_gets_502():
    dead = [closed_port_url() for _ in range(3)]
    retries = {"max_attempts": 5}
    async with running_router(dead, policy=in_house(Ordered), expect_healthy=0, retries=retries) as router:
        declare_healthy(router)
        async with router.post() as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "upstream_connection_failed"
        outcomes = await router.settled(3)
        assert [outcome.attempt for outcome in outcomes] == [1, 2, 3]
        assert router.record.selected == dead


async def test_a_kept_connection_the_worker_has_closed_costs_the_request_nothing(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        await router.ask()
        engine.cut_connections()
        assert await router.ask() == "engine"
        assert {facts(outcome) for outcome in await router.settled(2)} == {("success", 200, "single", 1)}
