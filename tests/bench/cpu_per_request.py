"""CPU a router spends on a small request and on a streamed chunk; policies, or whole routers, side by side.

    python tests/bench/cpu_per_request.py --policy round_robin --against cache_aware power_of_two
    python tests/bench/cpu_per_request.py --policy round_robin --command 'other-router --port {port} --to {worker_urls}'

All routers run during the whole measurement and are used in turn, so that whatever else the machine does, it does to
all of them. Read README.md beside this file before comparing figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys

import uvloop
from bench_parts import (
    CHUNK,
    HEALTHY,
    LAST_CHUNK,
    STREAM_HEAD,
    RequestReader,
    chat_request,
    cpu_s,
    router_command,
    running,
)

TICK_S = 0.01  # between two chunks of a stream: long enough that a router does not get two at once


class Engine:
    """Answers at once, and streams chunk by chunk to all its streams in step, as an engine does."""

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self._streams: dict[RequestReader, int] = {}

    def take(self, connection: RequestReader, request: bytes) -> None:
        if b'"stream": true' in request:
            connection.transport.write(STREAM_HEAD)
            self._streams[connection] = self._chunks
        else:
            connection.transport.write(HEALTHY)

    async def step(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for connection, left in list(self._streams.items()):
                if left:
                    connection.transport.write(CHUNK)
                    self._streams[connection] = left - 1
                else:
                    connection.transport.write(LAST_CHUNK)
                    del self._streams[connection]


async def run_engine(count: int, chunks: int) -> None:
    """Listen on `count` ports, print them and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    engine = Engine(chunks)
    servers = [
        await loop.create_server(lambda: RequestReader(engine.take), "127.0.0.1", 0, backlog=4096) for _ in range(count)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    stepping = asyncio.ensure_future(engine.step())
    await loop.run_in_executor(None, sys.stdin.read)
    stepping.cancel()


class Client(asyncio.Protocol):
    """One kept connection: sends its share of the requests, one after another."""

    def __init__(self, request: bytes, count: int, end: bytes) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.chunks = 0
        self._request = request
        self._left = count
        self._end = end
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.chunks += data.count(b"data: ")
        self._tail = (self._tail + data)[-len(self._end) :]
        if self._tail == self._end:
            self._tail = b""
            self._left -= 1
            if self._left:
                self._transport.write(self._request)
            else:
                self._transport.close()
                self.done.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the router hung up"))


async def drive(port: int, connections: int, each: int, request: bytes, end: bytes) -> int:
    """Send requests over some connections at once; return how many chunks came."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(request, each, end), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    async with asyncio.timeout(300):
        await asyncio.gather(*(client.done for client in clients))
    return sum(client.chunks for client in clients)


async def measure(port: int, pid: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return microseconds of CPU a request and a chunk."""
    each = max(1, options.requests // options.connections)
    began = cpu_s(pid)
    await drive(port, options.connections, each, chat_request(options.prompt_bytes, stream=False), HEALTHY[-8:])
    per_request = (cpu_s(pid) - began) / (each * options.connections)
    began = cpu_s(pid)
    request = chat_request(options.prompt_bytes, stream=True)
    chunks = await drive(port, options.streams, 1, request, b"\r\n" + LAST_CHUNK)
    assert chunks == options.streams * options.chunks, "the streams did not arrive whole"
    per_chunk = (cpu_s(pid) - began - options.streams * per_request) / chunks
    return per_request * 1e6, per_chunk * 1e6


def named_commands(options: argparse.Namespace) -> dict[str, str]:
    """Return the routers to measure: by policy, then by command, which may begin with NAME=."""
    commands = {policy: router_command(policy) for policy in (options.policy, *options.against)}
    for command in options.command:
        name, found, rest = command.partition("=")
        is_named = bool(found) and " " not in name
        commands[name if is_named else command.split()[0]] = rest if is_named else command
    return commands


async def compare(options: argparse.Namespace) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    own, routers = (cpus[-1], cpus[0]) if len(cpus) > 1 else (None, None)
    if own is not None:
        os.sched_setaffinity(0, {own})  # the engine inherits it
    engine = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--run-engine", str(options.workers), "--chunks", str(options.chunks)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    ports = (await engine.stdout.readline()).decode().split()  # type: ignore[union-attr]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    figures: dict[str, list[tuple[float, float]]] = {}
    async with contextlib.AsyncExitStack() as stack:
        running_ones = {
            name: await stack.enter_async_context(running(command, urls, routers))
            for name, command in named_commands(options).items()
        }
        for round_ in range(options.rounds + 1):
            for name, (port, pid) in running_ones.items():
                figure = await measure(port, pid, options)
                if round_:  # the first one warms up
                    figures.setdefault(name, []).append(figure)
    engine.stdin.close()  # type: ignore[union-attr]
    await engine.wait()
    print_table(figures, is_pinned=own is not None)


def print_table(figures: dict[str, list[tuple[float, float]]], *, is_pinned: bool) -> None:
    print(f"CPU microseconds, median (least to most); {'pinned' if is_pinned else 'not pinned: one processor'}")
    first = next(iter(figures.values()))
    print(f"{'':<24}{'a request':>24}{'vs first':>10}{'a chunk':>24}{'vs first':>10}")
    for name, rounds in figures.items():
        line = f"{name:<24}"
        for kind in (0, 1):
            values = [figure[kind] for figure in rounds]
            # Paired: each round is compared with the first router's same round.
            change = statistics.median(value / other[kind] - 1 for value, other in zip(values, first, strict=True))
            spread = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            line += f"{spread:>24}{change:>+10.0%}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policy", default="round_robin", help="what the others are compared with (%(default)s)")
    parser.add_argument("--against", nargs="*", default=[], metavar="POLICY", help="policies to compare with it")
    parser.add_argument("--command", action="append", default=[], help="[NAME=]command with {port} and {worker_urls}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="small requests a round (%(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="that send them (%(default)s)")
    parser.add_argument("--streams", type=int, default=200, help="streams at a time (%(default)s)")
    parser.add_argument("--chunks", type=int, default=100, help="chunks of each (%(default)s)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--prompt-bytes", type=int, default=200)
    parser.add_argument("--run-engine", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("this measurement reads /proc and pins processors: Linux only")
    uvloop.run(run_engine(options.run_engine, options.chunks) if options.run_engine else compare(options))


if __name__ == "__main__":
    main()
