from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from router_core.contract.worker import Worker
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.health import HealthChecker
from router_core.fleet.pool import WorkerPool

NEVER_S = 3600.0
SOON_S = 0.005


class Engine:
    """A real server: answers `script` first, then always `status`; tells when it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.script: list[int] = []
        self.asked = asyncio.Event()
        self.models: list[str] | None = ["model-a"]
        self.checks = 0
        self.url = ""

    async def health(self, request: web.Request) -> web.Response:
        self.checks += 1
        self.asked.set()
        return web.Response(status=self.script.pop(0) if self.script else self.status)

    async def next_check(self) -> None:
        self.asked.clear()
        async with asyncio.timeout(10):
            await self.asked.wait()

    async def list_models(self, request: web.Request) -> web.Response:
        if self.models is None:
            return web.Response(status=404)
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    one = Engine()
    app = web.Application()
    app.router.add_get("/health", one.health)
    app.router.add_get("/v1/models", one.list_models)
    async with TestServer(app) as server:
        one.url = str(server.make_url("")).rstrip("/")
        yield one


class Changes:
    """Every change of health, to be awaited."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, bool, str | None]] = asyncio.Queue()

    def __call__(self, worker: Worker, is_healthy: bool, reason: str | None) -> None:
        assert worker.is_healthy is is_healthy
        self.queue.put_nowait((worker.url, is_healthy, reason))

    async def next(self) -> tuple[str, bool, str | None]:
        async with asyncio.timeout(10):
            return await self.queue.get()


@asynccontextmanager
async def checking(pool: WorkerPool, changes: Changes | None = None, **options: Any) -> AsyncIterator[HealthChecker]:
    options = {"interval_s": NEVER_S, "timeout_s": 5.0, "random": Random(7), "on_change": changes} | options
    async with EngineClient() as client:
        checker = HealthChecker(pool, client, **options)
        checker.start()
        try:
            yield checker
        finally:
            await checker.stop()


def unchecked(url: str, **facts: Any) -> Worker:
    return Worker(url, is_healthy=False, **facts)


NOBODY = "http://127.0.0.1:9"  # the discard port: refused


# --- failing ---


async def test_an_unreachable_worker_is_settled_stays_unhealthy_and_is_mentioned_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = WorkerPool(workers=[unchecked(NOBODY)])
    async with checking(pool) as checker:
        await checker.settled()
        assert pool.candidates() == ()
    said = [record.getMessage() for record in caplog.records if NOBODY in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"worker {NOBODY} is not healthy yet: ")


async def test_without_checks_everybody_is_taken_for_well() -> None:
    pool, changes = WorkerPool(workers=[unchecked(NOBODY)]), Changes()
    async with checking(pool, changes, endpoint=None) as checker:
        assert await changes.next() == (NOBODY, True, None)
        checker.check_now(pool.workers[0])
        assert [worker.url for worker in pool.candidates()] == [NOBODY]


async def test_failures_below_the_threshold_do_no_harm_and_a_success_wipes_them_out() -> None:
    async with engine() as one:
        one.script = [200] + [500, 500, 200] * 3
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes, interval_s=SOON_S, failure_threshold=3):
            assert await changes.next() == (one.url, True, None)
            while one.script:
                await one.next_check()
            await one.next_check()
            assert changes.queue.empty()


async def test_failures_in_a_row_make_it_unhealthy_and_successes_in_a_row_bring_it_back() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes, interval_s=SOON_S, failure_threshold=3, success_threshold=2):
            assert await changes.next() == (one.url, True, None)
            asked, one.status = one.checks, 503
            assert await changes.next() == (one.url, False, "GET /health answered 503")
            assert 3 <= one.checks - asked <= 4
            asked, one.status = one.checks, 200
            assert await changes.next() == (one.url, True, None)
            assert 2 <= one.checks - asked <= 3


async def test_a_worker_that_never_was_well_is_asked_again_soon_and_admitted_at_once() -> None:
    async with engine() as one:
        one.status = 503
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes, interval_s=SOON_S, success_threshold=5) as checker:
            await checker.settled()
            assert pool.candidates() == ()
            asked, one.status = one.checks, 200
            assert await changes.next() == (one.url, True, None)
            assert one.checks - asked <= 2


async def test_a_check_that_hangs_ends_by_the_timeout_and_holds_nobody_up() -> None:
    async with engine() as one:
        waiting = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await waiting.wait()
            writer.close()

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        stuck = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        pool, changes = WorkerPool(workers=[unchecked(stuck), unchecked(one.url)]), Changes()
        async with checking(pool, changes, timeout_s=0.2) as checker:
            assert await changes.next() == (one.url, True, None)
            await checker.settled()
            assert [worker.url for worker in pool.candidates()] == [one.url]
        waiting.set()
        server.close()


# --- being asked ---


async def test_refused_connections_eject_a_worker_long_before_its_next_check_is_due() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes, failure_threshold=2) as checker:
            await changes.next()
            one.status = 500
            (worker,) = pool.workers
            checker.check_now(worker)
            await one.next_check()
            checker.check_now(worker)
            assert await changes.next() == (one.url, False, "GET /health answered 500")


async def test_a_worker_that_requests_lost_and_that_refuses_the_check_is_dead_at_once() -> None:
    pool, changes = WorkerPool(workers=[Worker(NOBODY)]), Changes()
    async with checking(pool, changes, failure_threshold=3) as checker:
        await checker.settled()
        assert pool.workers[0].is_healthy  # one refused check alone says little
        checker.check_now(pool.workers[0])
        url, is_healthy, reason = await changes.next()
        assert (url, is_healthy) == (NOBODY, False)
        assert reason is not None
        assert reason.startswith("GET /health failed: ")


async def test_a_worker_that_requests_lost_and_that_answers_the_check_is_well() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes, failure_threshold=2) as checker:
            await changes.next()
            one.script = [500, 200]  # unwell once is not dead
            for _ in range(2):
                checker.check_now(pool.workers[0])
                await one.next_check()
            assert changes.queue.empty()


async def test_a_thousand_refused_connections_are_a_few_checks() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes) as checker:
            await changes.next()
            asked = one.checks
            for _ in range(1000):
                checker.check_now(pool.workers[0])
            await one.next_check()
            for _ in range(1000):
                checker.check_now(pool.workers[0])
            await one.next_check()
            assert one.checks - asked == 2


async def test_asking_for_a_stranger_or_after_the_end_does_nothing() -> None:
    pool = WorkerPool(workers=[unchecked(NOBODY)])
    async with checking(pool) as checker:
        checker.check_now(Worker("http://stranger"))
    checker.check_now(pool.workers[0])
    pool.add(unchecked("http://127.0.0.1:10"))


# --- models ---


async def test_models_are_known_when_a_worker_is_admitted() -> None:
    async with engine() as one:
        one.models = ["model-a", "adapter-b"]
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes):
            await changes.next()
            assert pool.workers[0].models == {"model-a", "adapter-b"}


async def test_a_worker_that_does_not_tell_its_models_is_admitted_all_the_same() -> None:
    async with engine() as one:
        one.models = None
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes):
            assert await changes.next() == (one.url, True, None)
            assert pool.workers[0].models == frozenset()


async def test_models_of_the_config_are_kept() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url, models=["alias"])]), Changes()
        async with checking(pool, changes):
            await changes.next()
            assert pool.workers[0].models == {"alias"}


async def test_a_worker_that_comes_back_may_serve_another_model() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes, interval_s=SOON_S, failure_threshold=1):
            await changes.next()
            one.status, one.models = 500, ["model-b"]
            await changes.next()
            one.status = 200
            await changes.next()
            assert pool.workers[0].models == {"model-b"}


async def test_a_worker_that_starts_healthy_has_its_models_learned_too() -> None:
    async with engine() as one:
        pool = WorkerPool(workers=[Worker(one.url)])
        async with checking(pool) as checker:
            await checker.settled()
            assert pool.workers[0].models == {"model-a"}
            assert pool.workers[0].is_healthy


# --- joining, leaving, ending ---


async def test_an_empty_pool_is_settled_and_later_members_are_checked() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(), Changes()
        async with checking(pool, changes) as checker:
            await checker.settled()
            pool.add(unchecked(one.url))
            assert await changes.next() == (one.url, True, None)


async def test_a_departed_worker_is_no_longer_asked_and_does_not_hold_up_the_start() -> None:
    async with engine() as one:
        pool = WorkerPool(workers=[unchecked(one.url)])
        async with checking(pool, interval_s=SOON_S) as checker:
            pool.remove(one.url)
            await checker.settled()
            pool.remove(one.url)
        assert one.checks == 0


async def test_a_url_that_left_and_returned_is_checked_as_a_new_worker() -> None:
    async with engine() as one:
        pool, changes = WorkerPool(workers=[unchecked(one.url)]), Changes()
        async with checking(pool, changes):
            await changes.next()
            pool.remove(one.url)
            again = pool.add(unchecked(one.url))
            assert await changes.next() == (one.url, True, None)
            assert again.is_healthy


async def test_stopping_ends_every_task_even_in_the_middle_of_a_check() -> None:
    pool = WorkerPool(workers=[unchecked(NOBODY), unchecked("http://127.0.0.1:10")])
    before = asyncio.all_tasks()
    async with checking(pool):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


# --- spread ---


def test_workers_that_came_up_together_are_not_asked_together() -> None:
    from router_core.fleet.health import _Watch

    random, pauses = Random(1), []
    for number in range(100):
        watch = _Watch(unchecked(f"http://{number}"))
        assert 0.8 <= watch.pause_s(60, random) <= 1.2, "never well: soon"
        watch.judge(is_well=True, failure_threshold=3, success_threshold=2)
        watch.worker = Worker(watch.worker.url)
        pauses.append(watch.pause_s(60, random))
        assert 54 <= watch.pause_s(60, random) <= 66
    for quarter in range(4):
        assert sum(15 * quarter <= pause < 15 * (quarter + 1) for pause in pauses) > 10


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_a_worker_on_its_way_back_is_asked_soon(threshold: int) -> None:
    from router_core.fleet.health import _Watch

    watch = _Watch(unchecked("http://a"))
    watch.was_well = True
    assert watch.judge(is_well=True, failure_threshold=3, success_threshold=threshold) is (threshold == 1)
    pauses = {watch.pause_s(60, random) for random in map(Random, range(100))}
    assert 0.8 <= min(pauses) < 0.9 < 1.1 < max(pauses) <= 1.2, "soon, and not all together"
