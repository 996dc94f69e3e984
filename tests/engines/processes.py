"""What every child process of these tests needs: a log, a bounded wait for a state, a certain end."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

STATE_TIMEOUT_S = 60.0
"""How long a state may take to come about on a busy machine. Never how long it normally takes."""

END_TIMEOUT_S = 20.0
"""How long a child may take to end by itself."""


def wait_until(state: Callable[[], object], what: str, timeout_s: float = STATE_TIMEOUT_S) -> None:
    """Return as soon as `state()` is true.

    Raises:
        TimeoutError: If it is not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not state():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ChildProcess:
    """A child whose stderr goes to a log file. On Linux it does not outlive us even when we are killed."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        """Return all of its stderr so far."""
        return self._log.read_text(errors="replace")

    def read_line(self) -> str:
        """Return the next line of its stdout, empty when it ended without one."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """End it by SIGKILL: no goodbye to anybody."""
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it by SIGSTOP for a while: it keeps its connections, the kernel accepts new ones, and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Ask it to end, and make it end when it does not."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
