"""SIGHUP for the whole life of a process: it never ends it, and one that comes too early is not lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


class Hangups:
    """Takes SIGHUP from now on; until somebody acts upon it, it is remembered."""

    def __init__(self) -> None:
        self._has_come = False
        self._act: Callable[[], object] | None = None
        signal.signal(signal.SIGHUP, lambda number, frame: self._come())  # noqa: ARG005  # a handler takes both

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take it as a callback of the event loop, which may start tasks."""
        loop.add_signal_handler(signal.SIGHUP, self._come)

    def act_by(self, act: Callable[[], object]) -> None:
        """Call this for each one from now on, and at once if one has come already."""
        self._act = act
        if self._has_come:
            self._has_come = False
            act()

    def _come(self) -> None:
        if self._act is None:
            self._has_come = True
        else:
            self._act()
