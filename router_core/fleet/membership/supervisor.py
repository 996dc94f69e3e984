"""Runs the membership sources: each in a task of its own, from the router's start to its end.

What happens when a source fails, in two cases:

1. Before its first report, while the router starts: the router does not start.
2. Later: it is logged, the last list stays, and the source is built anew and run again after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from router_core.contract.errors import StartupError
from router_core.contract.membership import MembershipSource, Report, WorkerSpec
from router_core.fleet.membership.backoff import Backoff
from router_core.fleet.membership.roster import Roster
from router_core.fleet.membership.source_state import SourceRecord, SourceState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NamedSource:
    """A source that can be built as often as it fails.

    Attributes:
        name: Tells it apart, in messages too.
        build: Returns a new one; one that failed may be in any state.
    """

    name: str
    build: Callable[[], MembershipSource]


class SourceSupervisor:
    """Keeps sources running.

    Args:
        sources: What to run.
        roster: Takes their lists.
        random: Spreads the restarts.
        first_report_timeout_s: How long `start` waits for the first reports. A source that takes longer, because what
            it asks cannot be reached, goes on and reports when it can.
        sleep: Waits before a restart.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        sources: Iterable[NamedSource],
        roster: Roster,
        *,
        random: Random,
        first_report_timeout_s: float = 5.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = tuple(sources)
        self._records = {source.name: SourceRecord(source.name, now) for source in self._sources}
        self._roster = roster
        self._random = random
        self._first_report_timeout_s = first_report_timeout_s
        self._sleep = sleep
        self._tasks: tuple[asyncio.Task[NoReturn], ...] = ()

    async def start(self) -> None:
        """Run the sources and wait for their first reports, for a while.

        Raises:
            StartupError: If one fails before its first report; none is running then.
        """
        loop = asyncio.get_running_loop()
        first_reports: list[asyncio.Future[None]] = [loop.create_future() for _ in self._sources]
        self._tasks = tuple(
            loop.create_task(self._keep_running(source, first_report))
            for source, first_report in zip(self._sources, first_reports, strict=True)
        )
        try:
            if first_reports:
                timeout_s = self._first_report_timeout_s
                await asyncio.wait(first_reports, timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            await self.stop()
            raise
        errors = [error for report in first_reports if report.done() and (error := report.exception()) is not None]
        if errors:
            await self.stop()
            raise StartupError(problem for error in errors for problem in _problems(error)) from errors[0]
        for source, first_report in zip(self._sources, first_reports, strict=True):
            if first_report.cancel():
                log.warning("%s: has not reported yet; its workers join when it does", source.name)

    def states(self) -> list[SourceState]:
        """Return what is known of each source."""
        return [record.state() for record in self._records.values()]

    async def stop(self) -> None:
        """End all sources; returns when none is left running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = ()

    async def _keep_running(self, source: NamedSource, first_report: asyncio.Future[None]) -> NoReturn:
        backoff = Backoff(self._random)
        take, record = self._roster.report(source.name), self._records[source.name]

        def report(specs: tuple[WorkerSpec, ...]) -> None:
            if record.heard(specs):
                take(specs)
            backoff.reset()
            if not first_report.done():
                first_report.set_result(None)

        while True:
            error = await _run(source, report, record)
            record.is_running = False
            record.failures += 1
            if not first_report.done():
                first_report.set_exception(_startup_error(source.name, error))
                await asyncio.get_running_loop().create_future()  # the router will not start and cancels this
            delay_s = backoff.next_delay_s()
            log.error("%s: %s; the last list stays, trying again in %.1f s", source.name, _described(error), delay_s)
            await self._sleep(delay_s)
            record.is_running = True


async def _run(source: NamedSource, report: Report, record: SourceRecord) -> Exception:
    """Run a source and return why it ended."""
    try:
        running = source.build()
        record.max_silence_s = getattr(running, "max_silence_s", None)  # most sources may be silent
        await running.run(report)
    except Exception as error:  # noqa: BLE001  # a plugin's code: whatever it raises is told and does no more harm
        return error
    return RuntimeError("run() returned, which a source never does")


def _startup_error(name: str, error: Exception) -> StartupError:
    if isinstance(error, StartupError):
        return StartupError([f"{name}: {problem}" for problem in error.problems])
    startup_error = StartupError([f"{name}: {_described(error)} before its first report"])
    startup_error.__cause__ = error
    return startup_error


def _problems(error: BaseException) -> tuple[str, ...]:
    return error.problems if isinstance(error, StartupError) else (str(error),)


def _described(error: Exception) -> str:
    if isinstance(error, StartupError):
        return "; ".join(error.problems)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
