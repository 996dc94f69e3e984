"""What both measurements need: a router in a child process, and protocols as cheap as they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

READY_S = 30.0
BODY_MARK = b"\r\n\r\n"
ANSWER = b'{"object":"list","data":[],"choices":[{"index":0,"message":{"role":"assistant","content":"Yes."}}]}'
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":" word"}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
LAST_CHUNK = b"0\r\n\r\n"


class RequestReader(asyncio.Protocol):
    """The worker's side of one connection: cuts the bytes into requests and hands each over, head and body."""

    def __init__(self, on_request: Callable[[RequestReader, bytes], None]) -> None:
        self.transport: asyncio.Transport
        self._on_request = on_request
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(BODY_MARK)) >= 0:
            end += len(BODY_MARK)
            _, found, rest = buffer[:end].lower().partition(b"content-length:")
            size = int(rest.partition(b"\r\n")[0]) if found else 0
            if len(buffer) < end + size:
                break
            request, buffer = buffer[: end + size], buffer[end + size :]
            self._on_request(self, request)
        self._buffer = buffer


def chat_request(prompt_bytes: int = 200, *, stream: bool) -> bytes:
    """Return a chat request."""
    message = {"role": "user", "content": ("word " * (prompt_bytes // 5 + 1))[:prompt_bytes]}
    body = json.dumps({"model": "m", "messages": [message], "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + body


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def router_command(policy: str) -> str:
    """Return the command line of our own router, in the form that `--command` takes."""
    serve = f"{shlex.quote(sys.executable)} -m router_core serve --host 127.0.0.1 --port {{port}} --log-level error"
    return f"{serve} --policy {shlex.quote(policy)} --worker-urls {{worker_urls}}"


@contextlib.asynccontextmanager
async def running(command: str, worker_urls: Iterable[str], cpu: int | None = None) -> AsyncIterator[tuple[int, int]]:
    """Run a router and wait until a request of ours comes through; yields its port and process id.

    Args:
        command: With `{port}` and `{worker_urls}` (parted by spaces) in it.
        worker_urls: The workers.
        cpu: The only processor it may use.
    """
    port = free_port()
    words = shlex.split(command.replace("{port}", str(port)).replace("{worker_urls}", " ".join(worker_urls)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_CORE_")}
    process = subprocess.Popen(words, env=environment, start_new_session=True)  # noqa: ASYNC220
    try:
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})
        deadline = time.monotonic() + READY_S
        while not await _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the router is not ready: {shlex.join(words)}")
            await asyncio.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(READY_S)


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(chat_request(stream=False))
        async with asyncio.timeout(2):
            return b" 200 " in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        writer.transport.abort()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, its threads and its descendants. Linux only."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
            for child in (task / "children").read_text().split():
                total += int(cpu_s(int(child)) * 1e9)
    return total / 1e9


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of all do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
