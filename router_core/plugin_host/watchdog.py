"""Sees a hook that does not return, from a thread of its own, and says which plugin holds everybody up.

It does not run while a hook is stuck in C code that keeps the interpreter lock: that is for `InterpreterWatch`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable

_LOGGER = logging.getLogger(__name__)
EXIT_CODE = 70
"""`EX_SOFTWARE` of sysexits: the supervisor sees that the program, not its user, is at fault."""


class Running:
    """Whether a plugin is in a hook right now. The caller sets `entered_at`; the watchdog only looks.

    Attributes:
        plugin: Name and source, for the log.
        entered_at: When the hook was called, None between calls.
    """

    __slots__ = ("plugin", "entered_at")

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.entered_at: float | None = None


class Watchdog:
    """One daemon thread that watches any number of plugins whose hooks all run in one thread.

    Share one among all pools of a process. The thread starts with the first plugin and ends with the last.
    """

    def __init__(
        self,
        *,
        limit_s: float = 1.0,
        exit_process: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        end: Callable[[int], object] = os._exit,
        poll_s: float = 0.25,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            limit_s: How long a hook may take before it is reported.
            exit_process: End the process when one does, for its supervisor to start it anew.
            clock: The one that `Running.entered_at` is read from.
            end: How the process is ended.
            poll_s: Seconds between two looks.
        """
        self._limit_s = limit_s
        self._exit_process = exit_process
        self._clock = clock
        self._end = end
        self._poll_s = poll_s
        self._watched: tuple[Running, ...] = ()
        self._reported: dict[Running, float] = {}
        self._owner = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether its thread is at work."""
        return self._thread is not None

    def watch(self, plugins: Iterable[Running]) -> None:
        """Begin to watch plugins; called in the thread in which their hooks run."""
        self._owner = threading.get_ident()
        self._watched = tuple(dict.fromkeys((*self._watched, *plugins)))
        if self._thread is None and self._watched:
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._run, name="plugin-watchdog", daemon=True)
            self._thread.start()

    def release(self, plugins: Iterable[Running]) -> None:
        """Cease to watch plugins; unknown ones are ignored."""
        released = set(plugins)
        self._watched = tuple(running for running in self._watched if running not in released)
        for running in released:
            self._reported.pop(running, None)
        if self._thread is not None and not self._watched:
            self._stopped.set()
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Look once: report every hook that has been running for too long, each occurrence once."""
        for running in self._watched:
            entered_at = running.entered_at
            if entered_at is None or self._reported.get(running) == entered_at:
                continue
            elapsed = self._clock() - entered_at
            if elapsed > self._limit_s:
                self._reported[running] = entered_at
                self._report(running, elapsed)

    def _report(self, running: Running, elapsed: float) -> None:
        frame = sys._current_frames().get(self._owner)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(its thread has ended)\n"
        ending = f"; ending the process with code {EXIT_CODE}" if self._exit_process else ""
        _LOGGER.critical(
            "%s has been in a hook for %.1f s and holds up every request of this process%s; its stack:\n%s",
            running.plugin,
            elapsed,
            ending,
            stack,
        )
        if self._exit_process:
            self._end(EXIT_CODE)

    def _run(self) -> None:
        while not self._stopped.wait(self._poll_s):
            self.check()
