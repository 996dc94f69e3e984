"""Health checks: one small task a worker, spread in time, and quick to notice what matters.

Four cases decide when a worker is asked next:

1. It is unhealthy: every second or so, so that it is back in use soon after it is back.
2. Somebody asked for a check, because a connection was refused or its models are in question: now.
3. The router itself had no file or port left to ask with: in a second. That says nothing of the worker.
4. Otherwise: at the interval, give or take a tenth; the first time anywhere in the interval, so that a fleet that came
   up together is not asked together for ever.

The first checks of a large fleet are spread, too: 500 a second.

A worker that was never well is admitted by its first success; one that was well and failed has to pass
`success_threshold` checks in a row.

One that requests lost, and that then refuses the check's connection, is dead: two parties say so, and more checks would
only find it again when it is back, as if nothing had been.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Protocol

from router_core.contract.worker import Worker
from router_core.fleet.background import BackgroundTasks
from router_core.fleet.engine_client import CannotAskError, EngineReplyError, Refusal
from router_core.fleet.engine_facts import models_and_adapters

log = logging.getLogger(__name__)

_EAGER_INTERVAL_S = 1.0
_MIN_GAP_S = (
    0.1  # between two checks somebody asked for: a worker that refuses connections is not asked for each of them
)
_JITTER = 0.1
_LEARN_EVERY = 6  # checks passed: adapters come and go while an engine runs
_EAGER_JITTER = 0.2  # many may have gone down together
_FIRST_CHECKS_PER_S = 500


class CheckedPool(Protocol):
    """What of a pool the checker needs."""

    @property
    def workers(self) -> Sequence[Worker]:
        """The present members."""

    def set_health(self, worker: Worker, is_healthy: bool) -> None:
        """Let a worker be selected, or no longer."""

    def learn_models(self, worker: Worker, models: Iterable[str], adapters: Mapping[str, str]) -> None:
        """Note what a worker's engine tells it serves."""

    def subscribe(self, on_added: Callable[[Worker], None], on_removed: Callable[[Worker], None]) -> object:
        """Have workers that join and leave from now on reported."""


class Prober(Protocol):
    """Asks a worker; `EngineClient` does."""

    async def check_health(self, base_url: str, endpoint: str, timeout_s: float) -> str | None:
        """Return None when the worker is well, else why not; raise `CannotAskError` if nobody could ask."""

    async def fetch_models(self, base_url: str, timeout_s: float) -> list[dict[str, Any]]:
        """Return the worker's models, or raise `EngineReplyError`."""


Register = Callable[[Worker], Awaitable[None]]
"""Learns what a worker is, before it is admitted for the first time; may replace it by others."""

Identify = Callable[[Worker, Sequence[Mapping[str, Any]]], None]
"""Learns from its list of models, as it came, which engine a worker is. `Any`: an engine's own fields."""

OnChange = Callable[[Worker, bool, str | None], None]
"""Told when a worker became healthy or unhealthy, and in the latter case why."""


class HealthChecker:
    """Keeps `is_healthy` of a pool's workers true, from `start` to `stop`.

    Args:
        pool: Whose workers to check; those that join and leave later are followed.
        client: Asks them.
        endpoint: The path to ask; None asks nobody and takes all for well.
        interval_s: Seconds between checks of a worker, about.
        timeout_s: Seconds an answer may take.
        failure_threshold: Failures in a row that make a worker unhealthy.
        success_threshold: Successes in a row that bring it back.
        random: Spreads the checks.
        on_change: Called after each change.
        register: Called before a worker is admitted for the first time.
        identify: Called with each list of models that a worker answers with.
    """

    def __init__(
        self,
        pool: CheckedPool,
        client: Prober,
        *,
        endpoint: str | None = "/health",
        interval_s: float = 60.0,
        timeout_s: float = 5.0,
        failure_threshold: int = 3,
        success_threshold: int = 2,
        random: Random,
        on_change: OnChange | None = None,
        register: Register | None = None,
        identify: Identify | None = None,
    ) -> None:
        self._pool = pool
        self._client = client
        self._endpoint = endpoint
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._failure_threshold = failure_threshold
        self._success_threshold = success_threshold
        self._random = random
        self._on_change = on_change
        self._register = register
        self._identify = identify
        self._watches: dict[str, _Watch] = {}
        self._tasks = BackgroundTasks(log, "a worker is no longer checked, its health stays as it is")
        self._first_round: set[_Watch] = set()
        self._settled = asyncio.Event()
        self._is_running = False
        self._has_means = True

    def start(self) -> None:
        """Check every worker soon and go on checking."""
        self._is_running = True
        self._pool.subscribe(self._add, self._remove)
        for number, worker in enumerate(self._pool.workers):
            self._add(worker, delay_s=number / _FIRST_CHECKS_PER_S)
        self._first_round = set(self._watches.values())  # no task has run yet
        self._note_settled()

    async def stop(self) -> None:
        """End all checks; returns when none is left running."""
        self._is_running = False
        self._watches.clear()
        await self._tasks.cancel()

    async def settled(self) -> None:
        """Wait until every worker that was there at `start` has been checked once, or has left."""
        await self._settled.wait()

    def check_now(self, worker: Worker) -> None:
        """Have a worker checked at once: somebody lost it, or could not reach it.

        Cheap, and may be called for every such event. If it refuses the check's connection, too, it is unhealthy at
        once, whatever `failure_threshold` says.
        """
        watch = self._watches.get(worker.url)
        if watch is not None:
            watch.is_suspect = True
            watch.wake.set()

    def learn_now(self, worker: Worker) -> None:
        """Have a worker checked, and asked for its models if it is well, at once."""
        watch = self._watches.get(worker.url)
        if watch is not None:
            watch.wants_models = True
            watch.wake.set()

    def _add(self, worker: Worker, delay_s: float = 0.0) -> None:
        if self._is_running and worker.url not in self._watches:
            watch = self._watches[worker.url] = _Watch(worker)
            watch.task = self._tasks.start(self._follow(watch, delay_s))

    def _remove(self, worker: Worker) -> None:
        watch = self._watches.pop(worker.url, None)
        if watch is None:
            return
        if watch.task is not None:
            watch.task.cancel()
        self._first_round.discard(watch)
        self._note_settled()

    async def _follow(self, watch: _Watch, delay_s: float) -> None:
        worker = watch.worker
        if delay_s:
            await asyncio.sleep(delay_s)
        while True:
            watch.wake.clear()
            is_suspect, watch.is_suspect = watch.is_suspect, False
            try:
                reason = await self._ask(worker)
            except CannotAskError as error:
                self._note_means(error)
                await asyncio.sleep(_EAGER_INTERVAL_S)
                continue
            self._note_means(None)
            threshold = 1 if is_suspect and isinstance(reason, Refusal) else self._failure_threshold
            is_healthy = watch.judge(reason is None, threshold, self._success_threshold)
            if is_healthy and self._register is not None and not watch.is_registered:
                await self._register(worker)
                watch.is_registered = True
                if self._watches.get(worker.url) is not watch:
                    return  # others stand in for it now
            is_due = watch.wants_models or not worker.models or watch.successes % _LEARN_EVERY == 1
            if is_healthy and (is_due or not worker.is_healthy):
                watch.wants_models = False
                await self._learn_models(watch)
            if is_healthy is not worker.is_healthy:
                self._set_health(worker, is_healthy=is_healthy, reason=reason)
            elif watch in self._first_round and reason is not None:
                # Else a misspelt url would never be heard of: it does not change, it just never works.
                log.warning("worker %s is not healthy yet: %s", worker.url, reason)
            self._first_round.discard(watch)
            self._note_settled()
            await asyncio.sleep(min(_MIN_GAP_S, self._interval_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(watch.pause_s(self._interval_s, self._random)):
                    await watch.wake.wait()

    async def _ask(self, worker: Worker) -> str | None:
        if self._endpoint is None:
            return None
        return await self._client.check_health(worker.base_url, self._endpoint, self._timeout_s)

    async def _learn_models(self, watch: _Watch) -> None:
        """Note the worker's models and adapters before it is admitted. One that tells none is admitted without."""
        worker = watch.worker
        try:
            items = await self._client.fetch_models(worker.base_url, self._timeout_s)
        except EngineReplyError as error:
            level = logging.WARNING if watch.successes == 1 else logging.DEBUG  # it was said before
            log.log(level, "worker %s does not tell its models: %s", worker.url, error)
            return
        self._pool.learn_models(worker, *models_and_adapters(items))
        if self._identify is not None:
            self._identify(worker, items)

    def _note_means(self, lacking: CannotAskError | None) -> None:
        """Say it once when workers cannot be asked any more, and once when they can again."""
        if self._has_means is not (lacking is None):
            self._has_means = lacking is None
            if lacking is not None:
                log.error("workers cannot be checked, their health stays as it is: %s", lacking)
            else:
                log.info("workers can be checked again")

    def _set_health(self, worker: Worker, *, is_healthy: bool, reason: str | None) -> None:
        self._pool.set_health(worker, is_healthy)
        if is_healthy:
            log.info("worker %s is healthy", worker.url)
        else:
            log.warning("worker %s is unhealthy: %s", worker.url, reason)
        if self._on_change is not None:
            self._on_change(worker, is_healthy, reason)

    def _note_settled(self) -> None:
        if self._is_running and not self._first_round:
            self._settled.set()


class _Watch:
    """What is known of one worker under watch."""

    __slots__ = (
        "worker",
        "wake",
        "task",
        "failures",
        "successes",
        "is_suspect",
        "was_well",
        "has_phase",
        "is_registered",
        "wants_models",
    )

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.failures = 0  # in a row
        self.successes = 0  # in a row
        self.is_suspect = False  # requests lost it
        self.was_well = worker.is_healthy
        self.has_phase = False
        self.is_registered = False
        self.wants_models = False

    def judge(self, is_well: bool, failure_threshold: int, success_threshold: int) -> bool:
        """Take in the result of a check and return whether the worker is healthy now."""
        if is_well:
            self.successes += 1
            self.failures = 0
            if self.worker.is_healthy or not self.was_well or self.successes >= success_threshold:
                self.was_well = True
                return True
            return False
        self.failures += 1
        self.successes = 0
        return self.worker.is_healthy and self.failures < failure_threshold

    def pause_s(self, interval_s: float, random: Random) -> float:
        """Return how long to wait for the next check; the cases stand at the top of this file."""
        if not self.worker.is_healthy:
            return min(_EAGER_INTERVAL_S, interval_s) * random.uniform(1 - _EAGER_JITTER, 1 + _EAGER_JITTER)
        if not self.has_phase:
            self.has_phase = True
            return random.random() * interval_s
        return random.uniform(1 - _JITTER, 1 + _JITTER) * interval_s
