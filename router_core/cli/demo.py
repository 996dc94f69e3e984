"""`router-core demo`: a router before simulated engines, a first answer to look at, and what to try next."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator

import aiohttp
import uvloop

from router_core.cli.router_server import RouterServer
from router_core.config import load_config
from router_core.contract.errors import StartupError
from router_core.plugin_host.discovery import installed_policies
from router_core.testing.engine_process import EngineProcess

HOST = "127.0.0.1"
MODEL = "simulated-model"
QUESTION = "Which worker answers me, and why?"

_LAST_PORT = 65535
_READY_S = 10.0
_ANSWER_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--port", type=int, default=30000, help="port of the router (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3, metavar="COUNT", help="simulated engines (default: 3)")
    parser.add_argument("--policy", metavar="NAME", help="the policy that picks the worker (default: the router's)")


def run(parsed: argparse.Namespace) -> int:
    """Show a router at work until SIGTERM or Ctrl-C.

    Returns:
        0.

    Raises:
        StartupError: If the port is taken, or something else stands in the way.
    """
    if parsed.workers < 1:
        raise StartupError([f"--workers: {parsed.workers} is too few; give at least 1"])
    if not 0 <= parsed.port <= _LAST_PORT:
        raise StartupError([f"--port: {parsed.port} is no port; give a whole number from 0 to {_LAST_PORT}"])
    _check_port(parsed.port)
    uvloop.run(_demonstrate(parsed))
    return 0


async def _demonstrate(parsed: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _engines(parsed.workers) as urls, _router(parsed, urls) as server:
        names = {f"worker-{index}": url for index, url in enumerate(urls, start=1)}
        _introduce(server, names)
        first = loop.create_task(_ask(server, names))
        stopping = loop.create_task(stop.wait())
        await asyncio.wait((first, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            first.result()
            _suggest(server)
            await stopping
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        print("\nstopping", flush=True)


@contextlib.asynccontextmanager
async def _engines(count: int) -> AsyncIterator[tuple[str, ...]]:
    """Run simulated engines in a child process, so that the router has its event loop to itself."""
    name = "worker-1" if count == 1 else "worker"
    process = EngineProcess(
        *("--count", str(count), "--name", name, "--model", MODEL),
        *("--tokens", "24", "--ttft", "0.15", "--token-interval", "0.04"),
    )
    try:
        await process.start()
    except (RuntimeError, TimeoutError) as error:
        raise StartupError([f"the simulated engines did not start: {error}"]) from error
    try:
        yield process.urls
    finally:
        await process.stop()


@contextlib.asynccontextmanager
async def _router(parsed: argparse.Namespace, urls: tuple[str, ...]) -> AsyncIterator[RouterServer]:
    flags: dict[str, object] = {
        "host": HOST,
        "port": str(parsed.port),
        "worker_urls": list(urls),
        "log_level": "warning",
    }
    if parsed.policy is not None:
        flags["policy"] = parsed.policy
    config = load_config(path=None, environ={}, flags=flags)
    limits = config.limits.model_copy(update={"shutdown_grace_s": 1.0})
    server = RouterServer(config.model_copy(update={"limits": limits}))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _introduce(server: RouterServer, names: dict[str, str]) -> None:
    others = sorted({plugin.name for plugin in installed_policies().plugins} - {server.policy.name})
    print(f"router   {server.url}")
    print(f"policy   {server.policy.name} ({server.policy.source})")
    if others:
        print(f"         also installed: {', '.join(others)}; try router-core demo --policy NAME")
    for name, url in names.items():
        print(f"worker   {url}  {name}")
    print(flush=True)


async def _ask(server: RouterServer, names: dict[str, str]) -> None:
    """Send one streamed chat request and print the answer as it comes."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await _until_ready(session, server.url)
        print(f"> {QUESTION}", flush=True)
        async with session.post(f"{server.url}/v1/chat/completions", json=_question()) as response:
            response.raise_for_status()
            async for line in response.content:
                print(_text_of(line), end="", flush=True)
            name = response.headers.get("x-simulated-engine", "")
            print(f"\n\nserved by {name}, {names.get(name, 'unknown')}", flush=True)


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(_READY_S):
        while True:
            async with session.get(f"{url}/readiness") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.02)


def _suggest(server: RouterServer) -> None:
    body = json.dumps(_question())
    print(
        f"""
Ask again, and mind the header x-simulated-engine:

  curl -iN {server.url}/v1/chat/completions \\
    -H 'content-type: application/json' \\
    -d '{body}'

  curl {server.url}/readiness
  curl {server.url}/metrics

Ctrl-C ends it.""",
        flush=True,
    )


def _question() -> dict[str, object]:
    return {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}


def _text_of(line: bytes) -> str:
    data = line.removeprefix(b"data: ").strip()
    if data == line.strip() or data == b"[DONE]":
        return ""
    choices = json.loads(data)["choices"]
    return str(choices[0]["delta"].get("content", "")) if choices else ""


def _check_port(port: int) -> None:
    """Find out that the port is taken before anything is started."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartupError([f"--port: cannot listen on {HOST}:{port}: {reason}; choose another port"]) from error
