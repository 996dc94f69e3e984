"""A process that plugins keep from working: signals still end it, and code that keeps the interpreter is seen."""

from __future__ import annotations

import asyncio
import signal

import pytest

from router_core.cli.stop_signals import STUCK

from .router_process import listening_router, router_process
from .support import RawClient, chat

HOUSE = """
import re, time
from router_core.api import hookimpl

class First:
    @hookimpl
    def select_single(self, workers):
        return workers[0]

class Never(First):
    @hookimpl
    def select_single(self, workers):
        while True:
            time.sleep(0.01)

class NeverReleases(First):
    @hookimpl
    def select_single(self, workers):
        re.match("(a+)+$", "a" * 40 + "b")
        return workers[0]

class NeverStops(First):
    @hookimpl
    def on_stop(self):
        time.sleep(3600)

class NeverStarts(First):
    @hookimpl
    async def on_start(self):
        import asyncio
        print("starting", flush=True, file=__import__("sys").stderr)
        await asyncio.Event().wait()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "house.py").write_text(HOUSE)
    return tmp_path


def text_of(router):
    return "".join(router.lines)


async def test_a_second_signal_ends_a_process_whose_hook_does_not_return(simulated_engine, folder):
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, policy="house:Never", folder=folder) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat())
        await router.read_until("has been in a hook")
        router.send_signal(signal.SIGTERM)
        router.send_signal(signal.SIGINT)
        assert await router.ended() == STUCK
    assert "stopping: nothing in the process hears a further signal" in text_of(router)
    assert "house.py" in text_of(router)


async def test_a_second_signal_ends_a_process_whose_policy_does_not_stop(simulated_engine, folder):
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, policy="house:NeverStops", folder=folder) as router,
    ):
        router.send_signal(signal.SIGINT)
        await router.read_until("has been in a hook")
        router.send_signal(signal.SIGINT)
        assert await router.ended() == STUCK


async def test_a_burst_of_signals_ends_it_in_good_order(simulated_engine, folder):
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, policy="house:First", folder=folder) as router,
    ):
        for _ in range(5):
            router.send_signal(signal.SIGINT)
            await asyncio.sleep(0.01)  # the burst is what is tested
            if not router.is_running:
                break
        assert await router.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_router_that_is_told_to_stop_before_it_is_ready_stops(folder, number):
    async with router_process(
        "--worker-urls", "http://127.0.0.1:9", "--port", "0", "--policy", "house:NeverStarts", folder=folder
    ) as router:
        await router.read_until("starting")
        router.send_signal(number)
        assert await router.ended() == 0
    assert "stopping: told to before it was ready" in text_of(router)


async def test_a_hook_that_keeps_the_interpreter_ends_the_process_where_configured(simulated_engine, folder):
    settings = {"POLICY__EXIT_ON_HANG": "true"}
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, policy="house:NeverReleases", folder=folder, settings=settings) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat())
        assert await router.ended() == 1
    assert "most recent call first" in text_of(router)
    assert "house.py" in text_of(router)
