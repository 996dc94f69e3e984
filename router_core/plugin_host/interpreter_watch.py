"""Sees code that keeps the interpreter lock, such as a regular expression that backtracks without end.

No thread of Python's runs meanwhile, `Watchdog`'s neither; `faulthandler` has one of its own, in C.
"""

from __future__ import annotations

import faulthandler
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

_LOGGER = logging.getLogger(__name__)
_STANDARD_ERROR = 2


class InterpreterWatch:
    """Has every thread's stack written to standard error once no Python code has run for a while.

    One for a process, for `faulthandler` has one alarm: a thread puts it off every second, as long as it gets to run.
    Use as a context manager. A process that was stopped (SIGSTOP, a frozen container) looks the same once it goes on.

    Args:
        ends_process: Whether the process ends with that, by code 1; asked every second.
        limit_s: Seconds without any Python code, up to `every_s` less.
        every_s: Seconds between two puttings off.
    """

    def __init__(self, *, ends_process: Callable[[], bool], limit_s: float = 5.0, every_s: float = 1.0) -> None:
        self._ends_process = ends_process
        self._limit_s = limit_s
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interpreter-watch", daemon=True)

    def __enter__(self) -> InterpreterWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            faulthandler.dump_traceback_later(self._limit_s, exit=self._ends_process(), file=_STANDARD_ERROR)
            if self._stopped.wait(self._every_s):
                return
            now = time.monotonic()
            if now - last > self._limit_s:
                _LOGGER.critical(
                    "nothing in this process ran for %.1f s: C code kept the interpreter lock, or the process was "
                    "stopped; where it was stands on standard error",
                    now - last,
                )
            last = now
