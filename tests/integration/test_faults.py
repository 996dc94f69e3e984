"""Whatever a worker does, its client gets a right answer, a clear error or a connection that plainly breaks off.

After each fault: every selection has its completion, no load is left, the next request is served.
"""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp
import pytest

from router_core.contract.worker import Circuit
from router_core.testing.engine_process import EngineProcess
from router_core.testing.scripted_server import (
    Close,
    HalfClose,
    Pause,
    Read,
    ReadBytes,
    Reset,
    ScriptedServer,
    Send,
    WaitForPeer,
    answer,
)

from .support import chat, in_house, running_router, until
from .test_completions import Ordered
from .test_mid_stream import events_of
from .test_streaming import EVENTS, HEAD, chunk, worker_script

SOON = {"initial_backoff_s": 0.001}
SILENCE = {"first_byte_timeout_s": 0.05, "stall_timeout_s": 0.05}
ENDLESS = chat(stream=True, max_tokens=2_000, ignore_eos=True)

INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"

BEFORE_THE_ANSWER = {
    "reset on accept": [Reset()],
    "closed on accept": [Close()],
    "reset in the request": [ReadBytes(10), Reset()],
    "closed in the request": [ReadBytes(10), Close()],
    "reset after the request": [Read(), Reset()],
    "half-closed after the request": [Read(), HalfClose(), WaitForPeer()],
    "reset in the head": [Read(), Send(b"HTTP/1.1 200 OK\r\nconte"), Reset()],
    "half-closed in the head": [Read(), Send(b"HTTP/1.1 200 OK\r\nconte"), HalfClose(), WaitForPeer()],
    "reset after an interim head": [Read(), Send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Reset()],
    "never answers": [Read(), WaitForPeer()],
    "never reads": [WaitForPeer()],
    "drips its head": [
        Read(),
        Send(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2000, piece=1, interval_s=0.02),
        WaitForPeer(),
    ],
    "drips interim answers": [Read(), Send(INTERIM * 90, piece=len(INTERIM), interval_s=0.1), WaitForPeer()],
}
NO_HTTP = {
    "garbage": b"\x00\x01\x02\x03" * 100 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "another protocol": b"220 mail.example ESMTP\r\n\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"x-filler: y\r\n" * 10_000,
    "endless interim answers": INTERIM * 10_000,
    "one endless header": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
}


def ends_well(router):
    """Whether all is counted and nothing is left."""
    return router.is_settled() and not router.server.pools[-1].dispatcher.retries.retrying


@pytest.mark.parametrize("script", BEFORE_THE_ANSWER.values(), ids=BEFORE_THE_ANSWER)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_before_the_answer_is_made_up_for_elsewhere(simulated_engine, script, stream):
    async with (
        ScriptedServer(worker_script(script)) as worker,
        simulated_engine() as engine,
        running_router([worker, engine], policy=in_house(Ordered), retries=SOON, limits=SILENCE) as router,
    ):
        for _ in range(2):
            async with router.post(body=chat(stream=stream)) as response:
                assert response.status == 200
                assert response.headers["x-simulated-engine"] == "engine"
                await response.read()
        outcomes = await router.settled(4)
        assert [outcome.status in ("error", "timeout") for outcome in outcomes] == [True, False] * 2
        assert ends_well(router)


@pytest.mark.parametrize("script", BEFORE_THE_ANSWER.values(), ids=BEFORE_THE_ANSWER)
async def test_a_fault_of_every_worker_is_a_clear_error_and_opens_the_circuit(script):
    breaker = {"failure_threshold": 3, "open_s": 3600}
    async with (
        ScriptedServer(worker_script(script)) as worker,
        running_router([worker], retries=SOON | {"max_attempts": 3}, limits=SILENCE, breaker=breaker) as router,
    ):
        async with router.post() as response:
            assert response.status in (502, 504)
            assert (await response.json())["error"]["code"].startswith("upstream_")
        await router.settled(3)
        assert router.server.pool.workers[0].circuit is Circuit.OPEN
        assert ends_well(router)


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_is_a_502_and_the_workers_fault(sent):
    async with (
        ScriptedServer(worker_script([Read(), Send(sent), WaitForPeer()])) as worker,
        running_router([worker], retries=SOON) as router,
    ):
        async with router.post() as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "upstream_bad_answer"
        (outcome,) = await router.settled(1)
        assert outcome.status == "error"
        await worker.wait_closed(3)


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b"too short"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"64\r\ntoo short"),
    ],
)
@pytest.mark.parametrize("ending", [Close(), Reset(), HalfClose()])
async def test_an_answer_shorter_than_announced_is_not_taken_for_whole(head, sent, ending):
    gate = asyncio.Event()
    script = [Read(), Send(head + sent), Pause(event=gate), ending, WaitForPeer()]
    async with ScriptedServer(worker_script(script)) as worker, running_router([worker], retries=SOON) as router:
        async with router.post() as response:
            assert response.status == 200
            gate.set()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        (outcome,) = await router.settled(1)
        assert (outcome.status, outcome.http_status) == ("error", 200)


async def test_an_answer_longer_than_announced_is_cut_there_and_its_connection_not_used_again():
    longer = [Read(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"), WaitForPeer()]
    async with ScriptedServer(worker_script(longer)) as worker, running_router([worker]) as router:
        for _ in range(2):
            async with router.post() as response:
                assert (response.status, await response.read()) == (200, b"{}")
        await router.settled(2)
        await worker.wait_closed(4)


async def test_a_stream_that_drips_byte_by_byte_arrives_whole():
    wire = HEAD + b"".join(chunk(event) for event in EVENTS) + b"0\r\n\r\n"
    script = [Read(), Send(wire, piece=1, interval_s=0.0005), WaitForPeer()]
    limits = {"first_byte_timeout_s": 5, "stall_timeout_s": 1}
    async with ScriptedServer(worker_script(script)) as worker, running_router([worker], limits=limits) as router:
        async with router.post(body=chat(stream=True)) as response:
            assert await response.read() == b"".join(EVENTS)
        (outcome,) = await router.settled(1)
        assert outcome.status == "success"


# --- silence ---


async def test_a_stream_that_stops_ends_with_an_error():
    script = [Read(), Send(HEAD + chunk(EVENTS[0])), WaitForPeer()]
    async with (
        ScriptedServer(worker_script(script)) as worker,
        running_router([worker], limits={"stall_timeout_s": 0.05}, retries=SOON) as router,
    ):
        async with router.post(body=chat(stream=True)) as response:
            events = events_of(await response.read())
        assert b'"code":"upstream_timeout"' in events[1][1]
        assert events[-1] == ("message", b"[DONE]")
        (outcome,) = await router.settled(1)
        assert (outcome.status, outcome.http_status) == ("timeout", 200)
        await worker.wait_closed(3)


async def test_a_client_that_reads_slowly_is_not_the_workers_silence():
    body = b"x" * 20_000_000
    script = [Read(), answer(body), WaitForPeer()]
    async with (
        ScriptedServer(worker_script(script)) as worker,
        running_router([worker], limits={"stall_timeout_s": 0.05}) as router,
        router.post() as response,
    ):
        (exchange,) = router.server.relay.exchanges()
        await until(lambda: exchange._is_paused, "the client to be seen as slow")
        for _ in range(2):
            looked_at = exchange._still_since
            await until(lambda: exchange._still_since > looked_at, "the router to look")  # noqa: B023
        assert await response.read() == body
        (outcome,) = await router.settled(1)
        assert outcome.status == "success"


# --- processes ---


async def test_kill_9_in_mid_stream_ends_the_streams_with_an_error_and_the_next_requests_go_elsewhere(simulated_engine):
    health = {"interval_s": 0.05, "failure_threshold": 1}
    async with EngineProcess("--token-interval", "0.02") as process, simulated_engine() as engine:
        urls = [*process.urls, engine.url]
        async with running_router(urls, policy=in_house(Ordered), health=health, retries=SOON) as router:
            responses = [await router.post(body=ENDLESS) for _ in range(5)]
            for response in responses:
                await response.content.readuntil(b"\n\n")
            os.kill(process.pid, signal.SIGKILL)
            for response in responses:
                events = events_of(await response.read())
                assert b'"code":"upstream_connection_lost"' in events[-2][1]
                assert events[-1] == ("message", b"[DONE]")
            assert {await router.ask() for _ in range(5)} == {"engine"}
            await until(lambda: not router.server.pool.workers[0].is_healthy, "found dead")
            await until(lambda: ends_well(router))


async def test_a_frozen_workers_requests_are_served_elsewhere_once_it_is_found_dead(simulated_engine):
    health = {"interval_s": 0.05, "timeout_s": 0.2, "failure_threshold": 1}
    async with EngineProcess("--ttft", "0.5") as process, simulated_engine() as engine:
        urls = [*process.urls, engine.url]
        async with running_router(urls, policy=in_house(Ordered), health=health, retries=SOON) as router:
            asked = [asyncio.ensure_future(router.ask()) for _ in range(5)]
            await until(lambda: router.server.pool.workers[0].load == 5, "five requests")
            os.kill(process.pid, signal.SIGSTOP)
            try:
                assert await asyncio.gather(*asked) == ["engine"] * 5
                await until(lambda: ends_well(router))
            finally:
                os.kill(process.pid, signal.SIGCONT)
            await until(lambda: len(router.server.pool.candidates()) == 2, "back again")


async def test_a_frozen_worker_is_given_up_by_its_silence_and_checked_at_once(simulated_engine):
    """Its checks are far apart, and a frozen process still accepts connections."""
    limits = {"first_byte_timeout_s": 0.1, "stall_timeout_s": 0.1}
    health = {"interval_s": 3600, "timeout_s": 0.2, "failure_threshold": 1}
    async with EngineProcess("--token-interval", "0.01") as process, simulated_engine() as engine:
        settings = {"limits": limits, "health": health, "retries": SOON}
        async with running_router([*process.urls, engine.url], policy=in_house(Ordered), **settings) as router:
            stream = await router.post(body=ENDLESS)
            await stream.content.readuntil(b"\n\n")
            os.kill(process.pid, signal.SIGSTOP)
            try:
                assert await router.ask() == "engine"
                assert b'"code":"upstream_timeout"' in await stream.read()
                await until(lambda: not router.server.pool.workers[0].is_healthy, "found dead")
                await until(lambda: ends_well(router))
            finally:
                os.kill(process.pid, signal.SIGCONT)
