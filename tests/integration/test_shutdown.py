"""SIGTERM: what runs may finish within the grace period, nothing new begins, and policies are told."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import pytest

from router_core.testing.scripted_server import Pause, Read, ScriptedServer, Send

from .router_process import is_refused, listening_router
from .support import RawClient, chat, until
from .test_streaming import EVENTS, HEAD, chunk, worker_script

TIDY = """
from router_core.api import hookimpl

class Tidy:
    @hookimpl
    def select_single(self, workers):
        return workers[0]

    @hookimpl
    async def on_stop(self):
        open("stopped", "w").close()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "house.py").write_text(TIDY)
    return tmp_path


def stream_until(gate):
    """Return a worker's script: one event, another when the test says so."""
    return worker_script(
        [Read(), Send(HEAD + chunk(EVENTS[0])), Pause(event=gate), Send(chunk(EVENTS[1]) + chunk(b""))]
    )


SETTLE = "not ready any more"
GRACE = "running requests have"
HURRY = "a second signal ends the running requests now"


def stopping(router):
    """Return what the router has said of its stopping, in order."""
    return [mark for line in router.lines for mark in (SETTLE, GRACE, HURRY) if mark in line]


async def refused(url):
    for _ in range(2000):
        if await is_refused(url):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{url} still takes connections")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_running_stream_finishes_and_nothing_new_begins(folder, number):
    gate = asyncio.Event()
    async with (
        ScriptedServer(stream_until(gate)) as worker,
        listening_router(worker.url, policy="house:Tidy", folder=folder) as router,
        await RawClient.connect(router.url) as idle,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat(stream=True))
        await client.read_until(EVENTS[0])
        router.send_signal(number)
        await refused(router.url)
        assert await idle.read_rest() == b""  # an idle connection is closed at once
        assert router.is_running
        assert not (folder / "stopped").exists()
        gate.set()
        assert (await client.read_rest()).endswith(chunk(EVENTS[1]) + b"0\r\n\r\n")  # whole, then closed
        assert await router.ended() == 0
        assert (folder / "stopped").exists()


async def test_a_request_whose_answer_had_not_begun_finishes_too(simulated_engine, folder):
    async with (
        simulated_engine(ttft_s=0.3) as engine,
        listening_router(engine.url, policy="house:Tidy", folder=folder) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send()
        await engine.wait_running()
        router.send_signal(signal.SIGTERM)
        status, headers = await client.read_head()
        assert (status, headers["connection"]) == (200, "close")
        await client.read_rest()
        assert await router.ended() == 0


async def test_when_the_grace_is_over_streams_end_with_an_error_and_workers_see_it(folder):
    gate = asyncio.Event()
    async with (
        ScriptedServer(stream_until(gate)) as worker,
        listening_router(
            worker.url, policy="house:Tidy", folder=folder, settings={"LIMITS__SHUTDOWN_GRACE_S": "0.1"}
        ) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat(stream=True))
        await client.read_until(EVENTS[0])
        router.send_signal(signal.SIGTERM)
        ended = await client.read_rest()
        assert (b'"code":"shutting_down"' in ended, ended.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")) == (True, True)
        assert await router.ended() == 0
        gate.set()
        await worker.wait_closed(3)
        assert (folder / "stopped").exists()


async def test_when_the_grace_is_over_an_answer_that_is_no_stream_breaks_off(folder):
    gate = asyncio.Event()
    half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    async with (
        ScriptedServer(worker_script([Read(), Send(half), Pause(event=gate)])) as worker,
        listening_router(
            worker.url, policy="house:Tidy", folder=folder, settings={"LIMITS__SHUTDOWN_GRACE_S": "0.1"}
        ) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send()
        await client.read_until(b"{")
        router.send_signal(signal.SIGTERM)
        assert await client.read_rest() == b""
        assert await router.ended() == 0
        gate.set()


async def test_no_grace_ends_at_once(simulated_engine, folder):
    async with (
        simulated_engine(token_interval_s=0.02) as engine,
        listening_router(
            engine.url, policy="house:Tidy", folder=folder, settings={"LIMITS__SHUTDOWN_GRACE_S": "0"}
        ) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat(stream=True, max_tokens=100_000, ignore_eos=True))
        await client.read_until(b"content")
        router.send_signal(signal.SIGTERM)
        await client.read_rest()
        assert await router.ended() == 0
        assert (folder / "stopped").exists()
        await engine.wait_for_abort()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_grace(simulated_engine, folder, second):
    async with (
        simulated_engine(token_interval_s=0.02) as engine,
        listening_router(
            engine.url, policy="house:Tidy", folder=folder, settings={"LIMITS__SHUTDOWN_GRACE_S": "3600"}
        ) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat(stream=True, max_tokens=100_000, ignore_eos=True))
        await client.read_until(b"content")
        router.send_signal(signal.SIGTERM)
        await refused(router.url)
        assert router.is_running
        router.send_signal(second)
        await client.read_rest()
        assert await router.ended() == 0
        assert stopping(router) == [GRACE, HURRY]
        assert (folder / "stopped").exists()  # in a hurry, but in good order
        await engine.wait_for_abort()


async def test_an_idle_router_ends_at_once(simulated_engine, folder):
    async with simulated_engine() as engine, listening_router(engine.url, policy="house:Tidy", folder=folder) as router:
        async with await RawClient.connect(router.url) as client:
            client.send()
            await client.read_answer()  # the connection to the worker is kept, and idle
            router.send_signal(signal.SIGTERM)
            assert await router.ended() == 0
        await until(lambda: (folder / "stopped").exists())
        assert not any("Traceback" in line or "ERROR" in line for line in router.lines), router.lines


# --- settling ---


async def readiness(url):
    async with aiohttp.ClientSession() as session, session.get(f"{url}/readiness") as response:
        return response.status, (await response.json()).get("reason"), response.headers.get("connection")


async def test_before_it_ceases_to_listen_it_is_not_ready_and_serves_on(simulated_engine, folder):
    async with (
        simulated_engine() as engine,
        listening_router(
            engine.url, policy="house:Tidy", folder=folder, settings={"LIMITS__SHUTDOWN_SETTLE_S": "3600"}
        ) as router,
        await RawClient.connect(router.url) as kept,
    ):
        router.send_signal(signal.SIGTERM)
        await router.read_until("serving on for 3600 s")
        assert await readiness(router.url) == (503, "draining", "close")
        async with await RawClient.connect(router.url) as newcomer:
            for client in (kept, newcomer):
                client.send()
                status, headers = await client.read_head()
                assert (status, headers["connection"]) == (200, "close")
                assert (await client.read_rest()).endswith(b"}")
        router.send_signal(signal.SIGTERM)  # a second one has no patience
        assert await router.ended() == 0
        assert (folder / "stopped").exists()


async def test_a_second_signal_while_settling_ends_running_streams_too(simulated_engine, folder):
    settings = {"LIMITS__SHUTDOWN_SETTLE_S": "3600", "LIMITS__SHUTDOWN_GRACE_S": "3600"}
    async with (
        simulated_engine(token_interval_s=0.02) as engine,
        listening_router(engine.url, policy="house:Tidy", folder=folder, settings=settings) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat(stream=True, max_tokens=100_000, ignore_eos=True))
        await client.read_until(b"content")
        router.send_signal(signal.SIGTERM)
        await router.read_until("serving on")
        router.send_signal(signal.SIGINT)
        await client.read_rest()
        assert await router.ended() == 0
        assert stopping(router) == [SETTLE, HURRY]  # not a word of a grace that is over
        await engine.wait_for_abort()


async def test_ctrl_c_does_not_settle(simulated_engine, folder):
    async with (
        simulated_engine() as engine,
        listening_router(
            engine.url, policy="house:Tidy", folder=folder, settings={"LIMITS__SHUTDOWN_SETTLE_S": "3600"}
        ) as router,
    ):
        router.send_signal(signal.SIGINT)
        assert await router.ended() == 0


async def test_who_still_waits_in_the_queue_when_the_grace_is_over_is_told_why(simulated_engine):
    settings = {"LIMITS__SHUTDOWN_GRACE_S": "0.1", "ADMISSION__MAX_CONCURRENT_REQUESTS": "1"}
    async with (
        simulated_engine(token_interval_s=0.02) as engine,
        listening_router(engine.url, settings=settings) as router,
        await RawClient.connect(router.url) as running,
        await RawClient.connect(router.url) as waiting,
    ):
        running.send(chat(stream=True, max_tokens=100_000, ignore_eos=True))
        await running.read_until(b"content")
        waiting.send()
        await queued(router.url)
        router.send_signal(signal.SIGTERM)
        status, body = await waiting.read_answer()
        assert (status, b'"code":"shutting_down"' in body) == (503, True)
        assert await router.ended() == 0


async def queued(url):
    async with aiohttp.ClientSession() as session:
        for _ in range(2000):
            async with session.get(f"{url}/metrics") as response:
                if "router_core_admission_queue_length 1.0" in await response.text():
                    return
            await asyncio.sleep(0.005)
    raise AssertionError("nobody waits")
