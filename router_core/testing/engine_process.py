"""Simulated engines in a process of their own: the command line, and how another program starts and ends it."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

import uvloop

from router_core.engine_model.presets import PRESETS
from router_core.testing.simulated_engine import SimulatedEngine

_START_S = 30.0
_STOP_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run engines until SIGTERM or Ctrl-C; print each one's URL on a line of its own once all listen."""
    options = _parser().parse_args(arguments)
    try:
        uvloop.run(_serve(options))
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


class EngineProcess:
    """Engines in a child process, for whoever needs its event loop for itself.

    The child ends with its parent, however that ends: it watches the pipe to its standard input.

        async with EngineProcess("--count", "3", "--token-interval", "0.05") as engines:
            engines.urls

    Attributes:
        urls: Where the engines listen.
        bootstrap_ports: Of those started with `--pd`, in the same order.
        pid: The child's process id.
    """

    def __init__(self, *arguments: str) -> None:
        self.urls: tuple[str, ...] = ()
        self.bootstrap_ports: tuple[int, ...] = ()
        self.pid = 0
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the child and wait until all engines listen.

        Raises:
            RuntimeError: If it ends instead; what it printed has gone to standard error.
            TimeoutError: If it takes longer than half a minute.
        """
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "router_core.testing.simulated_engine", "--exit-with-stdin", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at a terminal is for the parent to handle
        )
        self.pid = process.pid
        try:
            async with asyncio.timeout(_START_S):
                self.urls, self.bootstrap_ports = await _read_addresses(process)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the child: politely, then by force. Does nothing when it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()


async def _read_addresses(process: asyncio.subprocess.Process) -> tuple[tuple[str, ...], tuple[int, ...]]:
    urls: list[str] = []
    ports: list[int] = []
    while process.stdout is not None and (line := (await process.stdout.readline()).decode().strip()) != "ready":
        if not line:
            raise RuntimeError(f"the simulated engines ended at once, with exit code {await process.wait()}")
        url, *port = line.split()
        urls.append(url)
        ports += map(int, port)
    return tuple(urls), tuple(ports)


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    transport: asyncio.BaseTransport | None = None
    if options.exit_with_stdin:
        transport, _ = await loop.connect_read_pipe(lambda: _EndOfInput(stopped), sys.stdin)
    async with AsyncExitStack() as stack:
        for index in range(options.count):
            engine = SimulatedEngine(
                name=options.name if options.count == 1 else f"{options.name}-{index + 1}",
                host=options.host,
                port=options.port + index if options.port else 0,
                models=tuple(options.model),
                tokens=options.tokens,
                ttft_s=options.ttft,
                token_interval_s=options.token_interval,
                constants=PRESETS[options.constants],
                cache_tokens=options.cache_tokens,
                dp_size=options.dp_size,
                pd=options.pd,
                role=options.role,
                connector=options.connector,
                bootstrap_port=options.bootstrap_port + index if options.bootstrap_port else 0,
                transfer_s=options.transfer,
                transfer_timeout_s=options.transfer_timeout,
                recomputes=options.recomputes,
                kept_requests=0,
            )
            await stack.enter_async_context(engine)
            print(engine.url if engine.pd is None else f"{engine.url} {engine.bootstrap_port}")
        print("ready", flush=True)
        await stopped.wait()
    if transport is not None:
        transport.close()


class _EndOfInput(asyncio.Protocol):
    """Notices that standard input has ended: the parent is gone."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, _error: Exception | None) -> None:
        self._ended.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router_core.testing.simulated_engine",
        description="Run simulated inference engines. Prints one URL a line, with --pd and its bootstrap port, "
        "then `ready`.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port of the first, the others follow; 0 for free ones")
    parser.add_argument("--count", type=int, default=1, help="how many engines (%(default)s)")
    parser.add_argument("--name", default="engine", help="name; with several, NAME-1, NAME-2, ... (%(default)s)")
    parser.add_argument("--model", nargs="+", default=["simulated-model"], help="ids of the models served")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of an answer nobody limits (%(default)s)")
    parser.add_argument("--ttft", type=float, help="seconds to the first token; else computed from the constants")
    parser.add_argument("--token-interval", type=float, help="seconds between tokens; else from the constants")
    parser.add_argument("--constants", choices=sorted(PRESETS), default="fast", help="what is simulated (%(default)s)")
    parser.add_argument("--cache-tokens", type=int, help="tokens of prefix cache; else from the constants")
    parser.add_argument("--dp-size", type=int, default=1, help="data-parallel ranks of each (%(default)s)")
    parser.add_argument("--pd", choices=("sglang", "vllm"), help="speak this prefill/decode protocol; needs --role")
    parser.add_argument("--role", choices=("prefill", "decode"), help="which leg to serve")
    connectors = ("nixl", "nixl-push", "mooncake", "p2p")
    parser.add_argument("--connector", choices=connectors, default="nixl", help="how vLLM moves KV (%(default)s)")
    parser.add_argument("--bootstrap-port", type=int, default=0, help="of the first; 0 for free ones")
    parser.add_argument("--transfer", type=float, default=0.0, help="seconds a KV cache takes to the other engine")
    parser.add_argument("--transfer-timeout", type=float, default=30.0, help="seconds a KV cache is kept or awaited")
    parser.add_argument(
        "--recomputes", action="store_true", help="a vLLM decode engine may do the prefill, as real ones"
    )
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input ends")
    return parser
