"""The child processes of a load test, and what the operating system and the router say of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_START_S = 60.0
_PREFIX = "ROUTER_CORE_"


class Engines:
    """Simulated engines in a child process.

    Attributes:
        urls: Where they listen.
    """

    def __init__(self, process: asyncio.subprocess.Process, urls: list[str]) -> None:
        self.urls = urls
        self._process = process

    async def counters(self) -> Counter[str]:
        """Return the counters of all engines together."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        answer: dict[str, dict[str, int]] = json.loads(await self._process.stdout.readline())
        total: Counter[str] = Counter()
        for counters in answer.values():
            total.update(counters)
        return total


class Router:
    """A router in a child process.

    Attributes:
        url: Where it listens.
        pid: Its process id.
    """

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    def rss_bytes(self) -> int:
        """Return its resident memory; 0 where /proc does not tell."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def cpu_s(self) -> float:
        """Return the CPU seconds it has used; 0 where /proc does not tell."""
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
        return 0.0

    async def metrics(self) -> dict[str, list[Any]]:
        """Scrape and return all samples by name."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            text = await response.text()
        samples: dict[str, list[Any]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name.removeprefix("router_core_"), []).append(sample)
        return samples


@contextlib.asynccontextmanager
async def engine_process(count: int, **knobs: float) -> AsyncIterator[Engines]:
    """Run simulated engines; they end when their standard input does."""
    child = Path(__file__).with_name("engine_child.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(child), json.dumps({"count": count, **knobs})),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
        yield Engines(process, json.loads(line))
    finally:
        await _end(process)


@contextlib.asynccontextmanager
async def router_process(
    worker_urls: list[str], policy: str, settings: Mapping[str, str] | None = None, *, arguments: Sequence[str] = ()
) -> AsyncIterator[Router]:
    """Run `router-core serve` and wait until all workers are healthy.

    Args:
        worker_urls: Its workers.
        policy: Its policy.
        settings: Environment variables without their prefix.
        arguments: More of its command line.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    environment |= {_PREFIX + name: value for name, value in (settings or {}).items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router_core", "serve", "--host", "127.0.0.1", "--port", "0", "--policy", policy),
        *("--worker-urls", *worker_urls),
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    reading: asyncio.Task[bytes] | None = None
    try:
        assert process.stderr is not None
        url, healthy = "", 0
        async with asyncio.timeout(_START_S):
            while not url or healthy < len(worker_urls):
                line = (await process.stderr.readline()).decode()
                assert line, "the router ended at once"
                if found := re.search(r"listening on (\S+),", line):
                    url = found[1]
                healthy += " is healthy" in line
        reading = asyncio.ensure_future(process.stderr.read())  # or the pipe fills up
        yield Router(url, process.pid)
    finally:
        await _end(process)
        if reading is not None:
            await reading


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    else:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
