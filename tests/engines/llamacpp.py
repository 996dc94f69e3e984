"""A real inference engine for tests: llama.cpp's own server, on the CPU, in a child process."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from .processes import ChildProcess, wait_until
from .scraping import figure
from .tiny_tokenizer import MODEL_NAME

_SERVER = Path(__file__).with_name("llamacpp_server.py")


class LlamaCppServer:
    """A running engine: `with LlamaCppServer(model, log) as engine: engine.url`.

    Attributes:
        url: Its address, `http://127.0.0.1:<port>`.
    """

    def __init__(self, model: Path, log: Path) -> None:
        self._command = [sys.executable, str(_SERVER), str(model), MODEL_NAME]
        self._log = log
        self._start(port=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.end()

    def metric(self, name: str) -> float:
        """Return the engine's own figure `llamacpp:<name>`."""
        return figure(self.url, f"llamacpp:{name}")

    @property
    def running(self) -> int:
        """Requests it is computing right now, as it says itself."""
        return int(self.metric("requests_processing"))

    def wait_until_idle(self) -> None:
        """Wait until it computes nothing."""
        wait_until(lambda: self.running == 0, f"requests_processing 0 at {self.url}")

    def kill(self) -> None:
        """End it by SIGKILL, as the kernel ends one that ran out of memory."""
        self._process.kill()

    def frozen(self) -> AbstractContextManager[None]:
        """Freeze it by SIGSTOP as long as the `with` lasts."""
        return self._process.frozen()

    def start_again(self) -> None:
        """Start a killed one anew, at its address and with an empty cache."""
        port = urlsplit(self.url).port
        assert port is not None
        self._process.end()  # of a dead one: close its pipes
        self._start(port)

    def _start(self, port: int) -> None:
        self._process = ChildProcess([*self._command, str(port)], self._log)
        self.url = self._process.read_line()
        if not self.url:
            self._process.end()
            raise RuntimeError(f"llama.cpp did not start:\n{self._process.said()}")
