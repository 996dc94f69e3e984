"""A real inference engine for tests: llama.cpp's own server, on the CPU, in a child process."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path
from typing import Self

from .processes import ChildProcess, wait_until
from .tiny_model import MODEL_NAME

_SERVER = Path(__file__).with_name("llamacpp_server.py")


class LlamaCppServer:
    """A running engine: `with LlamaCppServer(model, log) as engine: engine.url`.

    Attributes:
        url: Its address, `http://127.0.0.1:<port>`.
    """

    def __init__(self, model: Path, log: Path) -> None:
        self._process = ChildProcess([sys.executable, str(_SERVER), str(model), MODEL_NAME], log)
        self.url = self._process.read_line()
        if not self.url:
            self._process.end()
            raise RuntimeError(f"llama.cpp did not start:\n{self._process.said()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.end()

    def metric(self, name: str) -> float:
        """Return the engine's own figure `llamacpp:<name>`."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            for line in response.read().decode().splitlines():
                if line.startswith(f"llamacpp:{name} "):
                    return float(line.split()[1])
        raise KeyError(name)

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
