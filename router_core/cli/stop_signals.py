"""SIGTERM and SIGINT for the whole life of a process: the first one stops it in good order, whenever it comes, and a
further one ends it even when a plugin keeps the event loop from hearing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import traceback
from collections.abc import Callable
from types import FrameType

_log = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)
_PATIENCE_S = 1.0
STUCK = 70
"""The exit code when the event loop did not hear a further signal; `EX_SOFTWARE` of sysexits."""


class StopSignals:
    """Takes SIGTERM and SIGINT from now on.

    Before `listen` the first one ends the process at once, as nothing runs yet: SIGTERM with code 0, SIGINT as Ctrl-C.

    These are handlers of the interpreter's, not of the event loop's: they run between two steps of whatever Python code
    is stuck. Only C code that does not return, or keeps the interpreter lock, keeps them from running.

    Attributes:
        has_come: Whether any has come.
    """

    def __init__(self) -> None:
        self.has_come = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._act: Callable[[int], object] = lambda number: None  # noqa: ARG005  # named as in `listen`
        self._before = {number: signal.signal(number, self._come) for number in _ENDING}
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)

    def listen(self, loop: asyncio.AbstractEventLoop, act: Callable[[int], object]) -> None:
        """Call `act` with the number of each one, as a callback of the event loop."""
        self._loop, self._act = loop, act

    def end(self, *, restore: bool) -> None:
        """Have no more of them: the loop has ended, and with it what there was to stop.

        Args:
            restore: Give them back to whoever had them; else they are ignored, for the process is about to end.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler if restore else signal.SIG_IGN)

    def _come(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a handler takes both
        is_further, self.has_come = self.has_come, True
        if self._loop is None:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(0)
        if is_further:
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._hear, number)

    def _hear(self, number: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._act(number)

    def _give_up(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a handler takes both
        try:
            stack = "".join(traceback.format_stack(frame))
            _log.critical("stopping: nothing in the process hears a further signal; it ends now, stuck in\n%s", stack)
        finally:
            os._exit(STUCK)
