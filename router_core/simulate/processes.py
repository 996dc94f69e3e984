"""Runs side by side, each in a process of its own, as many at a time as told."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from router_core.contract.errors import StartupError
from router_core.simulate.contender import Contender
from router_core.simulate.record import RunRecord
from router_core.simulate.replay import Replay
from router_core.simulate.scenario import Scenario


class RunFailedError(Exception):
    """A run came to no end; says which one and why."""


def run_apart(
    scenario: Scenario,
    runs: Sequence[tuple[Contender, int]],
    *,
    jobs: int,
    progress: Callable[[float], None] | None,
) -> list[RunRecord]:
    """Return the record of each run, in order.

    Args:
        scenario: What is replayed.
        runs: Policy and seed of each; policies must be named, not made.
        jobs: How many processes work at a time.
        progress: Told the share of all work that is done.

    Raises:
        StartupError: A policy cannot be had, or cannot start.
        RunFailedError: A process died, or a run raised.
    """
    context = multiprocessing.get_context("spawn")
    records: list[RunRecord | None] = [None] * len(runs)
    shares = [0.0] * len(runs)
    waiting = list(reversed(range(len(runs))))
    working: dict[Connection, tuple[int, Any]] = {}  # Any: a process of the context's
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                index = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(theirs, scenario, *runs[index]), daemon=True)
                _start_deaf_to_interrupts(process)
                theirs.close()
                working[ours] = index, process
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)  # noqa: S101  # nothing else is waited for
                index, process = working[ready]
                contender, seed = runs[index]
                try:
                    news = ready.recv()
                except EOFError:
                    process.join()
                    code = process.exitcode or 0
                    end = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
                    remedy = "; give fewer --jobs if there was too little memory" if code == -signal.SIGKILL else ""
                    raise RunFailedError(f"policy {contender.label}, seed {seed}: its process {end}{remedy}") from None
                if isinstance(news, float):
                    shares[index] = news
                elif isinstance(news, RunRecord):
                    records[index] = news
                    shares[index] = 1.0
                    del working[ready]
                    process.join()
                    ready.close()
                elif isinstance(news, tuple):
                    raise StartupError(news)
                else:
                    raise RunFailedError(f"policy {contender.label}, seed {seed}: {news}")
                if progress is not None:
                    progress(sum(shares) / len(shares))
    finally:
        for connection, (_, process) in working.items():
            process.terminate()
            process.join()
            connection.close()
    return [record for record in records if record is not None]


def _start_deaf_to_interrupts(process: Any) -> None:  # Any: a process of the context's
    """Start a process that Ctrl-C does not reach, not even while it imports: it is ours to end."""
    resource_tracker.ensure_running()  # else `start` does it, and takes the block away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(news: Connection, scenario: Scenario, contender: Contender, seed: int) -> None:
    def told(done: int, total: int) -> None:
        news.send(done / total)

    try:
        news.send(Replay(scenario, contender, seed=seed, progress=told).run())
    except StartupError as error:
        news.send(error.problems)
    except Exception as error:  # noqa: BLE001  # told in the parent
        news.send(f"{type(error).__name__}: {error}")
