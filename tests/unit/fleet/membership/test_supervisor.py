"""Sources are run, and run again when they fail; one that never worked keeps the router from starting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest

from router_core.contract.errors import StartupError
from router_core.contract.membership import Report, WorkerSpec
from router_core.fleet.membership.roster import Roster
from router_core.fleet.membership.supervisor import NamedSource, SourceSupervisor
from router_core.fleet.pool import WorkerPool

A, B = WorkerSpec("http://a"), WorkerSpec("http://b")


class Source:
    """A source whose runs do what a test says, one after the other; the last one for ever."""

    def __init__(self, *runs: object) -> None:
        self.runs = list(runs)
        self.built = 0
        self.is_running = False

    def build(self) -> Source:
        self.built += 1
        return self

    async def run(self, report: Report) -> None:
        step = self.runs.pop(0)
        for item in step if isinstance(step, list) else [step]:
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            if isinstance(item, tuple):
                report(item)
            else:
                assert isinstance(item, asyncio.Event)
                await item.wait()
        self.is_running = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.is_running = False


class Sleep:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.asked = asyncio.Event()
        self.may_go = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.asked.set()
        await self.may_go.acquire()


@asynccontextmanager
async def supervised(
    *sources: Source, sleep: Callable[..., object] | None = None, first_report_timeout_s: float = 20.0
) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool()
    named = [NamedSource(f"membership[{index}] (fake)", source.build) for index, source in enumerate(sources)]
    supervisor = SourceSupervisor(
        named,
        Roster(pool),
        random=Random(1),
        first_report_timeout_s=first_report_timeout_s,
        sleep=sleep or Sleep(),  # type: ignore[arg-type]
    )
    await supervisor.start()
    try:
        yield pool
    finally:
        await supervisor.stop()


def urls(pool: WorkerPool) -> list[str]:
    return [worker.url for worker in pool.workers]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (StartupError(["file x: is not there; create it"]), "membership[0] (fake): file x: is not there; create it"),
        (ValueError("of mine"), "membership[0] (fake): ValueError: of mine before its first report"),
        (None, "membership[0] (fake): RuntimeError: run() returned, which a source never does before its first report"),
    ],
)
async def test_a_source_that_fails_before_its_first_report_keeps_the_router_from_starting(
    error: Exception | None, says: str
) -> None:
    good = Source((A,))
    with pytest.raises(StartupError) as caught:
        async with supervised(Source(error), good):
            pass
    assert caught.value.problems == (says,)
    assert not good.is_running


async def test_start_returns_once_every_source_has_reported() -> None:
    async with supervised(Source((A,)), Source((B,))) as pool:
        assert urls(pool) == ["http://a", "http://b"]


async def test_without_sources_nothing_happens() -> None:
    async with supervised() as pool:
        assert urls(pool) == []


async def test_a_source_that_fails_later_is_built_anew_and_the_last_list_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sleep, failing = Sleep(), asyncio.Event()
    source = Source([(A,), failing, OSError("gone")], OSError("still gone"), StartupError(["wrong"]), (B,))
    with caplog.at_level(logging.ERROR):
        async with supervised(source, sleep=sleep) as pool:
            failing.set()
            for count in (1, 2, 3):
                await sleep.asked.wait()
                sleep.asked.clear()
                assert urls(pool) == ["http://a"]
                assert len(sleep.delays) == count
                sleep.may_go.release()
            while not source.is_running:  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0)
            assert urls(pool) == ["http://b"]
            assert source.built == 4
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "membership[0] (fake): OSError: gone",
        "membership[0] (fake): OSError: still gone",
        "membership[0] (fake): wrong",
    ]
    assert sleep.delays == sorted(sleep.delays)


async def test_pauses_grow_and_begin_small_again_after_a_report() -> None:
    sleep = Sleep()
    for _ in range(5):
        sleep.may_go.release()
    source = Source([(A,), OSError()], OSError(), OSError(), [(A,), OSError()], (B,))
    async with supervised(source, sleep=sleep):
        while not source.is_running:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
    assert len(sleep.delays) == 4
    assert sleep.delays[0] <= 0.5 < sleep.delays[2]
    assert sleep.delays[3] <= 0.5


async def test_a_source_that_cannot_say_yet_does_not_hold_the_start_up(caplog: pytest.LogCaptureFixture) -> None:
    answered = asyncio.Event()
    source = Source([answered, (A,)])
    async with supervised(source, first_report_timeout_s=0.01) as pool:
        assert urls(pool) == []
        assert "has not reported yet" in caplog.text
        answered.set()
        while not source.is_running:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        assert urls(pool) == ["http://a"]


async def test_a_late_source_that_fails_before_its_first_report_is_tried_again() -> None:
    sleep, failing = Sleep(), asyncio.Event()
    source = Source([failing, OSError()], (A,))
    async with supervised(source, sleep=sleep, first_report_timeout_s=0.01) as pool:
        failing.set()
        await sleep.asked.wait()
        sleep.may_go.release()
        while not source.is_running:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        assert urls(pool) == ["http://a"]


async def test_sources_end_when_the_router_stops() -> None:
    source = Source((A,))
    async with supervised(source):
        while not source.is_running:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
    assert not source.is_running
