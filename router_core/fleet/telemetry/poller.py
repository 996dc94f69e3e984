"""Asks every engine of a pool for its load, again and again, and notes the answer in `worker.engine`.

Each engine is asked by a task of its own: one that hangs delays nobody. Workers that are data-parallel ranks of one
engine share its task and its answer. Which source an engine answers is found out once and remembered; when it is gone
(404), all are tried anew. An engine that has none is asked only every `_BARREN_POLLS`-th time.

What happens to a reading, in three cases:

1. A poll succeeds: it is replaced.
2. A poll fails: it stays, and its age grows. A policy judges by `worker.engine.age(pool.now())`.
3. It is older than `stale_after_s` after a poll, or polling stops, or the worker leaves: it becomes None.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol

from router_core.contract.worker import EngineTelemetry, Worker, assign
from router_core.fleet.background import BackgroundTasks
from router_core.fleet.engine_client import EngineReplyError
from router_core.fleet.telemetry.reading import Reading
from router_core.fleet.telemetry.sources import SOURCES, Source

log = logging.getLogger(__name__)

_JITTER = 0.1
_BARREN_POLLS = 12
_STALE_INTERVALS = 3
_NOT_THERE = frozenset({404, 405, 501})


class PolledPool(Protocol):
    """What of a pool the poller needs."""

    @property
    def workers(self) -> Sequence[Worker]:
        """The present members."""

    def subscribe(self, on_added: Callable[[Worker], None], on_removed: Callable[[Worker], None]) -> object:
        """Have workers that join and leave from now on reported."""


class Fetcher(Protocol):
    """Gets a path of an engine; `EngineClient` does."""

    async def fetch(self, base_url: str, path: str, timeout_s: float) -> bytes:
        """Return the body of a 200 answer, or raise `EngineReplyError`."""


class Freshness(NamedTuple):
    """How far a worker's telemetry can be trusted, for a metric.

    Attributes:
        age_s: Seconds since its reading was taken; None when it has none.
        failures: Polls that failed since the last that succeeded.
    """

    age_s: float | None
    failures: int


class TelemetryPoller:
    """Keeps `engine` of a pool's workers filled, from `start` to `stop`; start it only for those who read it.

    Args:
        pool: Whose workers to ask; those that join and leave later are followed.
        client: Asks them.
        interval_s: Seconds between polls of an engine, give or take a tenth.
        timeout_s: Seconds one poll may take, all sources tried included.
        random: Spreads the polls.
        now: The pool's clock.
        stale_after_s: Age at which a reading is dropped when it cannot be renewed; None for three intervals and one
            timeout.
    """

    def __init__(
        self,
        pool: PolledPool,
        client: Fetcher,
        *,
        interval_s: float = 5.0,
        timeout_s: float = 2.0,
        random: Random,
        now: Callable[[], float],
        stale_after_s: float | None = None,
    ) -> None:
        self._pool = pool
        self._client = client
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._random = random
        self._now = now
        self._stale_after_s = _STALE_INTERVALS * interval_s + timeout_s if stale_after_s is None else stale_after_s
        self._engines: dict[str, _Engine] = {}
        self._tasks = BackgroundTasks(log, "an engine's load is no longer polled")
        self._is_running = False
        self._is_subscribed = False

    def start(self) -> None:
        """Ask every engine at once and go on asking. Does nothing when it is running."""
        if self._is_running:
            return
        self._is_running = True
        if not self._is_subscribed:
            self._is_subscribed = True
            self._pool.subscribe(self._add, self._remove)
        for worker in self._pool.workers:
            self._add(worker)

    async def stop(self) -> None:
        """End all polls and forget all readings; returns when none is left running."""
        self._is_running = False
        await self._tasks.cancel()
        for engine in self._engines.values():
            for worker in engine.workers.values():
                assign(worker, engine=None)
        self._engines.clear()

    def freshness(self) -> dict[str, Freshness]:
        """Return the age and failures of each polled worker's telemetry, by its url."""
        now = self._now()
        return {
            url: Freshness(None if worker.engine is None else worker.engine.age(now), engine.failures[url])
            for engine in self._engines.values()
            for url, worker in engine.workers.items()
        }

    def _add(self, worker: Worker) -> None:
        if not self._is_running:
            return
        engine = self._engines.get(worker.base_url)
        if engine is None:
            engine = self._engines[worker.base_url] = _Engine(worker.base_url)
            engine.task = self._tasks.start(self._follow(engine))
        engine.workers[worker.url] = worker
        engine.failures[worker.url] = 0

    def _remove(self, worker: Worker) -> None:
        engine = self._engines.get(worker.base_url)
        if engine is None or engine.workers.pop(worker.url, None) is None:
            return
        del engine.failures[worker.url]
        assign(worker, engine=None)
        if not engine.workers:
            del self._engines[engine.base_url]
            if engine.task is not None:
                engine.task.cancel()

    async def _follow(self, engine: _Engine) -> None:
        has_phase = False
        while True:
            if engine.rest:
                engine.rest -= 1
            else:
                await self._poll(engine)
            self._drop_stale(engine)
            # The first pause ends anywhere in the interval: a fleet that came up together is not asked together.
            factor = self._random.uniform(1 - _JITTER, 1 + _JITTER) if has_phase else self._random.random()
            has_phase = True
            await asyncio.sleep(factor * self._interval_s)

    async def _poll(self, engine: _Engine) -> None:
        asked_at = self._now()  # a reading is never taken for fresher than it is
        readings: dict[str, Reading] = {}
        try:
            async with asyncio.timeout(self._timeout_s):
                readings = await self._ask(engine)
        except (EngineReplyError, TimeoutError) as error:
            log.debug("engine %s does not tell its load: %s", engine.base_url, str(error) or "timeout")
        for url, worker in engine.workers.items():
            reading = readings.get(url)
            if reading is None:
                engine.failures[url] += 1
            else:
                engine.failures[url] = 0
                assign(worker, engine=EngineTelemetry(asked_at, *reading))

    async def _ask(self, engine: _Engine) -> dict[str, Reading]:
        """Return the readings of the engine's source, found out first if need be; at least one.

        Raises:
            EngineReplyError: If the engine cannot be reached, or tells its load nowhere.
        """
        if engine.source is not None:
            try:
                readings = engine.read(engine.source, await self._fetch(engine, engine.source))
            except EngineReplyError as error:
                if error.status not in _NOT_THERE:
                    raise
            else:
                if readings:
                    return readings
            engine.source = None
        is_barren = True
        for source in SOURCES:
            try:
                readings = engine.read(source, await self._fetch(engine, source))
            except EngineReplyError as error:
                if error.status is None:
                    raise
                is_barren = is_barren and error.status in _NOT_THERE
                continue
            if readings:
                engine.source = source
                return readings
        engine.rest = _BARREN_POLLS - 1 if is_barren else 0
        raise EngineReplyError("it has no source that is known")

    async def _fetch(self, engine: _Engine, source: Source) -> bytes:
        return await self._client.fetch(engine.base_url, source.path, self._timeout_s)

    def _drop_stale(self, engine: _Engine) -> None:
        now = self._now()
        for worker in engine.workers.values():
            if worker.engine is not None and worker.engine.age(now) > self._stale_after_s:
                assign(worker, engine=None)


class _Engine:
    """One address: the workers behind it and what is known of its telemetry.

    Attributes:
        rest: How many polls to leave out, because it had nothing to tell.
    """

    __slots__ = ("base_url", "workers", "failures", "source", "rest", "task")

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.workers: dict[str, Worker] = {}
        self.failures: dict[str, int] = {}
        self.source: Source | None = None
        self.rest = 0
        self.task: asyncio.Task[None] | None = None

    def read(self, source: Source, body: bytes) -> dict[str, Reading]:
        """Return what an answer tells of each worker, by url; workers it tells nothing of are left out."""
        found = ((url, source.parse(body, _rank(worker))) for url, worker in self.workers.items())
        return {url: reading for url, reading in found if reading is not None}


def _rank(worker: Worker) -> int | None:
    """Return a worker's data-parallel rank, None when it is no rank but a whole engine."""
    _, _, tail = worker.url.rpartition("@")
    return int(tail) if worker.url != worker.base_url and tail.isascii() and tail.isdigit() else None
