"""The router as its users run it, `router-core serve`, where signals, exit codes and what it prints matter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from .support import STATE_TIMEOUT_S

_PREFIX = "ROUTER_CORE_"


class RouterProcess:
    """A child process that runs the router.

    Attributes:
        url: Where it listens, empty until it has said so.
        lines: What it has said on standard error so far.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.url = ""
        self.lines: list[str] = []
        self._process = process

    async def read_until(self, mark: str) -> str:
        """Return the next line of its log with `mark` in it."""
        assert self._process.stderr is not None
        async with asyncio.timeout(STATE_TIMEOUT_S):
            while line := (await self._process.stderr.readline()).decode():
                self.lines.append(line)
                if mark in line:
                    return line
        raise AssertionError(f"it ended without saying {mark!r}: {''.join(self.lines)}")

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end and return the exit code; the rest of its log is in `lines`."""
        assert self._process.stderr is not None
        async with asyncio.timeout(STATE_TIMEOUT_S):
            rest = (await self._process.stderr.read()).decode()
            self.lines += rest.splitlines(keepends=True)
            return await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


@contextlib.asynccontextmanager
async def router_process(
    *arguments: str,
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
    files: int | None = None,
) -> AsyncIterator[RouterProcess]:
    """Start `router-core serve` with these arguments; it is killed at the end if it still runs.

    Args:
        *arguments: What follows `serve`.
        folder: Its working directory.
        settings: Environment variables without their prefix, such as `LIMITS__SHUTDOWN_GRACE_S`.
        files: How many files it may have open; None for as many as this process.
    """
    limited = () if files is None else ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    environment |= {_PREFIX + name: value for name, value in (settings or {}).items()}
    process = await asyncio.create_subprocess_exec(
        *(*limited, sys.executable, "-m", "router_core", "serve", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment,
    )
    router = RouterProcess(process)
    try:
        yield router
    finally:
        router.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def listening_router(
    *worker_urls: str,
    policy: str = "round_robin",
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    files: int | None = None,
) -> AsyncIterator[RouterProcess]:
    """Start a router before these workers and wait until it listens and all of them are healthy.

    Told to stop, it does so without settling, unless `settings` says otherwise.
    """
    settings = {"LIMITS__SHUTDOWN_SETTLE_S": "0"} | dict(settings or {})
    arguments = ["--host", host, "--port", str(port), "--policy", policy]
    if worker_urls:
        arguments += ["--worker-urls", *worker_urls]
    async with router_process(*arguments, folder=folder, settings=settings, files=files) as router:
        line = await router.read_until("listening on ")
        router.url = re.search(r"listening on (\S+),", line).group(1)
        for _ in worker_urls:
            await router.read_until(" is healthy")
        yield router


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def is_refused(url: str) -> bool:
    """Tell whether a connection to `url` is refused."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.transport.abort()
    return False
