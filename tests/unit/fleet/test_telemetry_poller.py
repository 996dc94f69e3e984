from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from router_core.contract.worker import EngineTelemetry, Worker
from router_core.fleet.engine_client import EngineClient, EngineReplyError
from router_core.fleet.pool import WorkerPool
from router_core.fleet.telemetry.poller import Freshness, TelemetryPoller
from router_core.testing.simulated_engine import SimulatedEngine
from router_core.testing.waiting import Waiters

SOON_S = 0.002
NEVER_S = 3600.0
METRICS = b"vllm:num_requests_running 4\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"
LOADS = (
    b'{"loads": [{"dp_rank": 0, "num_running_reqs": 1, "num_waiting_reqs": 0}, {"dp_rank": 1, "num_running_reqs": 2}]}'
)


class Engines:
    """Answers by `(base_url, path)`: a body, a status, None for nobody there, or "hang"."""

    def __init__(self, answers: dict[tuple[str, str], Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self._waiters = Waiters()

    async def fetch(self, base_url: str, path: str, timeout_s: float) -> bytes:
        path = path.partition("?")[0]
        self.asked.append((base_url, path))
        self._waiters.changed()
        answer = self.answers.get((base_url, path), 404)
        if answer == "hang":
            await asyncio.get_running_loop().create_future()
        if answer is None:
            raise EngineReplyError("nobody there")
        if isinstance(answer, int):
            raise EngineReplyError(f"answered {answer}", answer)
        return answer

    async def wait_asked(self, more: int = 1) -> None:
        """Wait until that many more questions were asked; all before the last of them have been dealt with."""
        target = len(self.asked) + more
        await self._waiters.wait(lambda: len(self.asked) >= target, 10, lambda: f"asked {self.asked}")

    async def wait_dealt(self, poller: TelemetryPoller, is_reached: Callable[[dict[str, Freshness]], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_reached(poller.freshness()):
                await self.wait_asked()


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds


@asynccontextmanager
async def polling(
    pool: WorkerPool, engines: Any, clock: Clock | None = None, **options: Any
) -> AsyncIterator[TelemetryPoller]:
    settings = {"interval_s": SOON_S, "timeout_s": 5.0, "random": Random(7), "now": (clock or Clock()).now}
    poller = TelemetryPoller(pool, engines, **settings | options)
    poller.start()
    try:
        yield poller
    finally:
        await poller.stop()


def is_fresh(url: str) -> Callable[[dict[str, Freshness]], bool]:
    return lambda freshness: freshness[url].age_s is not None


async def test_a_reading_carries_the_figures_and_the_time_it_was_asked_for() -> None:
    pool, engines = WorkerPool(workers=[Worker("a")]), Engines({("a", "/metrics"): METRICS})
    async with polling(pool, engines) as poller:
        await engines.wait_dealt(poller, is_fresh("a"))
        assert pool.workers[0].engine == EngineTelemetry(100.0, 4, 1, None, 0.5)
        assert poller.freshness() == {"a": Freshness(0.0, 0)}


async def test_the_source_that_answered_is_remembered_and_found_anew_when_it_is_gone() -> None:
    pool, engines = WorkerPool(workers=[Worker("a")]), Engines({("a", "/metrics"): METRICS})
    async with polling(pool, engines):
        await engines.wait_asked(4)
        assert engines.asked[:4] == [("a", "/v1/loads"), *[("a", "/metrics")] * 3]
        engines.answers = {("a", "/get_load"): b'[{"dp_rank": 0, "num_reqs": 9, "num_waiting_reqs": 2}]'}
        while engines.asked[-2:] != [("a", "/get_load")] * 2:
            await engines.wait_asked()
        worker = pool.workers[0]
        assert worker.engine is not None
        assert (worker.engine.running_requests, worker.engine.cache_usage) == (7, None)


async def test_a_worker_that_hangs_delays_nobody() -> None:
    answers = {("a", "/v1/loads"): "hang", ("b", "/metrics"): METRICS}
    pool, engines = WorkerPool(workers=[Worker("a"), Worker("b")]), Engines(answers)
    async with polling(pool, engines, timeout_s=NEVER_S) as poller:
        await engines.wait_dealt(poller, is_fresh("b"))
        await engines.wait_asked(5)
        assert engines.asked.count(("a", "/v1/loads")) == 1
        assert pool.workers[0].engine is None


async def test_a_poll_that_takes_too_long_is_a_failure() -> None:
    pool, engines = WorkerPool(workers=[Worker("a")]), Engines({("a", "/v1/loads"): "hang"})
    async with polling(pool, engines, timeout_s=SOON_S) as poller:
        await engines.wait_dealt(poller, lambda freshness: freshness["a"].failures >= 2)
        assert pool.workers[0].engine is None


@pytest.mark.parametrize("failure", [None, 503, b"", b"vllm:num_requests_running x\n"])
async def test_a_failed_poll_leaves_the_last_reading_until_it_is_stale(failure: Any) -> None:
    pool, engines, clock = WorkerPool(workers=[Worker("a")]), Engines({("a", "/metrics"): METRICS}), Clock()
    async with polling(pool, engines, clock, stale_after_s=30.0) as poller:
        await engines.wait_dealt(poller, is_fresh("a"))
        engines.answers = {("a", "/metrics"): failure}
        clock.seconds = 130.0
        await engines.wait_dealt(poller, lambda freshness: freshness["a"].failures >= 1)
        assert poller.freshness()["a"].age_s == 30.0
        clock.seconds = 131.0
        engines.answers = {("a", "/metrics"): 503}
        await engines.wait_dealt(poller, lambda freshness: freshness["a"].age_s is None)
        assert pool.workers[0].engine is None
        engines.answers = {("a", "/metrics"): METRICS}
        await engines.wait_dealt(poller, is_fresh("a"))
        assert poller.freshness()["a"] == Freshness(0.0, 0)


async def test_an_unreachable_worker_is_asked_for_one_source_only() -> None:
    pool, engines = WorkerPool(workers=[Worker("a")]), Engines({("a", "/v1/loads"): None})
    async with polling(pool, engines):
        await engines.wait_asked(3)
        assert set(engines.asked) == {("a", "/v1/loads")}


async def test_an_engine_that_has_nothing_to_tell_is_left_in_peace() -> None:
    pool = WorkerPool(workers=[Worker("mute"), Worker("b")])
    engines = Engines({("b", "/metrics"): METRICS})
    async with polling(pool, engines) as poller:
        while engines.asked.count(("b", "/metrics")) < 12:
            await engines.wait_asked()
        assert engines.asked.count(("mute", "/metrics")) <= 2
        assert poller.freshness()["mute"].age_s is None


async def test_ranks_share_one_question_and_read_their_own_entry() -> None:
    ranks = [Worker(f"http://a@{rank}", base_url="http://a") for rank in range(3)]
    pool, engines = WorkerPool(workers=ranks), Engines({("http://a", "/v1/loads"): LOADS})
    async with polling(pool, engines, interval_s=NEVER_S) as poller:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engines.asked == [("http://a", "/v1/loads")]
        figures = [None if rank.engine is None else rank.engine.running_requests for rank in ranks]
        assert figures == [1, 2, None]
        assert poller.freshness()["http://a@2"] == Freshness(None, 1)


async def test_workers_that_join_are_followed_and_those_that_leave_forgotten() -> None:
    pool, engines = WorkerPool(), Engines({("a", "/metrics"): METRICS})
    async with polling(pool, engines) as poller:
        worker = pool.add(Worker("a"))
        await engines.wait_dealt(poller, is_fresh("a"))
        pool.remove("a")
        assert worker.engine is None
        assert poller.freshness() == {}
        pool.add(worker)
        await engines.wait_dealt(poller, is_fresh("a"))


async def test_stop_forgets_and_start_begins_anew() -> None:
    pool, engines = WorkerPool(workers=[Worker("a")]), Engines({("a", "/metrics"): METRICS})
    async with polling(pool, engines) as poller:
        await engines.wait_dealt(poller, is_fresh("a"))
        await poller.stop()
        asked = len(engines.asked)
        assert pool.workers[0].engine is None
        pool.add(Worker("b"))
        assert len(engines.asked) == asked
        poller.start()
        poller.start()
        await engines.wait_dealt(poller, is_fresh("a"))
        assert set(poller.freshness()) == {"a", "b"}


async def test_a_real_client_reads_a_simulated_engine() -> None:
    async with SimulatedEngine(token_interval_s=NEVER_S) as engine, EngineClient() as client:
        pool = WorkerPool(workers=[Worker(engine.url)])
        changed = asyncio.Event()

        class Watched:
            async def fetch(self, base_url: str, path: str, timeout_s: float) -> bytes:
                body = await client.fetch(base_url, path, timeout_s)
                asyncio.get_running_loop().call_soon(changed.set)
                return body

        async with polling(pool, Watched()):
            async with asyncio.timeout(10):
                while pool.workers[0].engine is None:
                    changed.clear()
                    await changed.wait()
            assert pool.workers[0].engine == EngineTelemetry(100.0, 0, 0, 0, 0.0)
