"""NVIDIA Dynamo's mocker: vLLM's scheduling and prefix cache without a model, behind Dynamo's own OpenAI frontend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from .installing import Recipe
from .processes import ChildProcess, free_port, wait_until
from .scraping import answers, figure
from .tiny_tokenizer import MODEL_NAME

RECIPE = Recipe(
    name="dynamo",
    alone=("ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"),  # a stub among what they name fetches from another index
    packages=(
        "aiohttp>=3.14.3",
        "kubernetes>=32.0.1,<33",
        "msgspec",
        "prometheus-client<1",
        "pydantic<=2.13.5",
        "pyzmq",
        "redis<9",
        "tqdm",
        "transformers<5.20",
        "typing_extensions",
        "uvloop",
        "zstandard",
    ),
)

START_TIMEOUT_S = 120.0
BLOCK_TOKENS = 32
_BLOCKS = 400


class DynamoWorker:
    """One frontend and one mocked engine, a worker of its own: `with DynamoWorker(...) as worker: worker.url`.

    Its inner connections listen on other addresses of this machine than 127.0.0.1 too; no option of its forbids it.

    Attributes:
        url: Its address, `http://127.0.0.1:<port>`.
    """

    def __init__(self, python: Path, checkpoint: Path, folder: Path) -> None:
        """Start it; what it writes goes into `folder`."""
        folder.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "DYN_FILE_KV": str(folder / "store"),  # its own: workers that share one would share their requests
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "HF_HUB_OFFLINE": "1",
        }
        planes = ["--discovery-backend", "file", "--request-plane", "tcp", "--event-plane", "zmq"]
        frontend = ["dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(port)]
        frontend += ["--router-mode", "round-robin"]
        engine = ["dynamo.mocker", "--model-path", str(checkpoint), "--model-name", MODEL_NAME]
        engine += ["--block-size", str(BLOCK_TOKENS), "--num-gpu-blocks-override", str(_BLOCKS)]
        self._frontend, self._engine = (
            ChildProcess([str(python), "-m", *command, *planes], folder / f"{command[0]}.log", environment)
            for command in (frontend, engine)
        )

    def __enter__(self) -> Self:
        try:
            wait_until(self._serves_or_ended, f"model at {self.url}", START_TIMEOUT_S)
            if not self._is_running():
                raise RuntimeError("Dynamo did not start")
        except (TimeoutError, RuntimeError) as error:
            self._end()
            raise RuntimeError(f"{error}:\n{self._frontend.said()}\n{self._engine.said()}") from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    @property
    def running(self) -> int:
        """Requests it is serving right now, as it says itself."""
        return int(figure(self.url, "dynamo_frontend_inflight_requests"))

    def wait_until_idle(self) -> None:
        """Wait until it serves nothing."""
        wait_until(lambda: self.running == 0, f"no request at {self.url}")

    def kill_engine(self) -> None:
        """End the mocked engine by SIGKILL and leave the frontend."""
        self._engine.kill()

    def _is_running(self) -> bool:
        return self._frontend.is_running() and self._engine.is_running()

    def _serves_or_ended(self) -> bool:
        return not self._is_running() or MODEL_NAME in answers(f"{self.url}/v1/models")

    def _end(self) -> None:
        self._engine.end()
        self._frontend.end()
