"""How long after a client closes its socket its worker sees the connection closed: printed, not judged.

    python tests/bench/abort_latency.py [--policy cache_aware] [--command 'other-router --port {port} ...']

Client and worker live in this process, on one clock; the router in another.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import time

import uvloop
from bench_parts import CHUNK, HEALTHY, STREAM_HEAD, RequestReader, chat_request, percentile, router_command, running

NEVER_S = 10.0  # "inf" in the table: the worker was not told within this time


class Worker(RequestReader):
    """Answers health checks, keeps every stream waiting and tells when its connection is gone."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(self._take)
        self._bench = bench
        self._seen: asyncio.Future[float] | None = None

    def _take(self, _: RequestReader, request: bytes) -> None:
        if b'"stream": true' not in request:
            self.transport.write(HEALTHY)
            return
        self._seen = self._bench.present
        if self._bench.answers:
            self.transport.write(STREAM_HEAD + CHUNK)
        else:
            self._bench.close_client()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._seen is not None and not self._seen.done():
            self._seen.set_result(time.perf_counter() - self._bench.closed_at)


class Client(asyncio.Protocol):
    """Asks for a stream and closes at its first event."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._bench.client = transport  # type: ignore[assignment]
        transport.write(chat_request(stream=True))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if b"data: " in data:
            self._bench.close_client()


class Bench:
    """One abort at a time.

    Attributes:
        answers: Whether the worker sends a first event, at which the client leaves.
        client: The client's present connection.
        closed_at: When the client closed it.
        present: Set when the worker sees that.
    """

    def __init__(self) -> None:
        self.answers = False
        self.client: asyncio.Transport
        self.closed_at = 0.0
        self.present: asyncio.Future[float]

    def close_client(self) -> None:
        """Look at the clock and close."""
        self.closed_at = time.perf_counter()
        self.client.close()

    async def measure(self, port: int, count: int) -> list[float]:
        """Return the latencies; infinity for a worker that saw nothing for long, after which we give up."""
        loop = asyncio.get_running_loop()
        latencies = []
        for _ in range(count):
            self.present = loop.create_future()
            await loop.create_connection(lambda: Client(self), "127.0.0.1", port)
            try:
                async with asyncio.timeout(NEVER_S):
                    latencies.append(await self.present)
            except TimeoutError:
                return [*latencies, math.inf]
        return latencies


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policy", default="round_robin")
    parser.add_argument("--command", help="another router, with {port} and {worker_urls}")
    parser.add_argument("--aborts", type=int, default=200, help="of each kind (%(default)s)")
    options = parser.parse_args()

    bench = Bench()
    server = await asyncio.get_running_loop().create_server(lambda: Worker(bench), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running(options.command or router_command(options.policy), [url]) as (port, _):
        results: dict[bool, list[float]] = {False: [], True: []}
        step = max(1, options.aborts // 10)
        for start, answers in itertools.product(range(0, options.aborts, step), results):  # interleaved
            if math.inf in results[answers]:
                continue
            bench.answers = answers
            results[answers] += await bench.measure(port, min(step, options.aborts - start))
    server.close()
    print(f"{'client leaves':<24}{'aborts':>8}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for answers, name in ((False, "before the first byte"), (True, "in mid-stream")):
        values = [value * 1e3 for value in results[answers]]
        figures = (percentile(values, 0.5), percentile(values, 0.99), max(values))
        print(f"{name:<24}{len(values):>8}" + "".join(f"{figure:>10.2f}" for figure in figures))


if __name__ == "__main__":
    uvloop.run(main())
