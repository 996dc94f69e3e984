"""Bounds `on_start` and `on_stop` in time: the only hooks that may be awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable


class HookTimeoutError(Exception):
    """A hook had not ended when its time was over; it was cancelled and is no longer waited for."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(timeout_s)

    def __str__(self) -> str:
        return f"did not end within {self.timeout_s:g} s"


@runtime_checkable
class Stoppable(Protocol):
    """A context whose timers can be ended."""

    def stop(self) -> None:
        """End all timers."""


@runtime_checkable
class HasTimers(Protocol):
    """A context whose timers are called by whoever runs the plugin.

    Attributes:
        call_timer: Calls what a timer is due to, and raises nothing.
    """

    call_timer: Callable[[Callable[[], None]], None]


async def await_bounded(results: Iterable[object], *, timeout_s: float) -> None:
    """Await those of a hook's results that can be awaited, one after the other, each bounded in time.

    Raises:
        HookTimeoutError: When the time is over, even if the hook resists being cancelled.
        Exception: Whatever the hook raises.
    """
    for result in results:
        if not inspect.isawaitable(result):
            continue
        task = asyncio.ensure_future(result)
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.add_done_callback(_look_away)
            task.cancel()
            raise HookTimeoutError(timeout_s)
        task.result()


def _look_away(task: asyncio.Future[object]) -> None:
    """Fetch what an abandoned hook ended with, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()
