"""Waiting for a counter to get somewhere: woken by each change, never by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WAIT_S = 10.0
"""How long a test waits by default; only a failing one waits that long."""


class Waiters:
    """Those who wait until a condition over somebody's counters holds."""

    def __init__(self) -> None:
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def changed(self) -> None:
        """Wake those whose condition now holds. Call it after every change."""
        for is_reached, future in self._waiters:
            if not future.done() and is_reached():
                future.set_result(None)

    async def wait(self, is_reached: Callable[[], bool], timeout_s: float, describe: Callable[[], str]) -> None:
        """Wait until the condition holds, or has held at one of the changes.

        Raises:
            TimeoutError: If that takes longer than `timeout_s`; the message is `describe()`'s.
        """
        if is_reached():
            return
        waiter = (is_reached, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1]
        except TimeoutError as error:
            raise TimeoutError(f"{describe()} after {timeout_s:g} s") from error
        finally:
            self._waiters.remove(waiter)
