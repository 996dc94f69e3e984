"""Time that passes only when there is nothing left to do: the simulator's clock and its agenda."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class VirtualTime:
    """A clock that jumps from one event to the next. Events at the same moment come in the order they were planned.

    Attributes:
        now_s: Seconds since the start.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._agenda: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._serial = 0
        self._is_stopped = False

    def now(self) -> float:
        """Return the virtual seconds since the start."""
        return self.now_s

    def at(self, at_s: float, callback: Callable[..., object], *arguments: Any) -> None:  # Any: the callback's own
        """Call back at a moment; one that is past means now."""
        self._serial += 1
        heapq.heappush(self._agenda, (at_s, self._serial, callback, arguments))

    def call_later(self, delay: float, callback: Callable[[], object]) -> VirtualTimer:
        """Call back once in `delay` seconds, as an `asyncio` loop does; for a pool's timers."""
        timer = VirtualTimer(callback)
        self.at(self.now_s + delay, timer.fire)
        return timer

    def run(self) -> None:
        """Let everything happen until `stop` is called or nothing is left."""
        agenda, pop = self._agenda, heapq.heappop
        self._is_stopped = False
        while agenda and not self._is_stopped:
            at_s, _, callback, arguments = pop(agenda)
            if at_s > self.now_s:
                self.now_s = at_s
            callback(*arguments)

    def stop(self) -> None:
        """Let nothing more happen."""
        self._is_stopped = True


class VirtualTimer:
    """A call that is due; like an `asyncio.TimerHandle`."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Take it back."""
        self._callback = None

    def fire(self) -> None:
        """Make the call, unless it was taken back."""
        if self._callback is not None:
            self._callback()
