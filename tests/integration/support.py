"""A router in the test's own loop, watched from inside: every selection and every completion is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from router_core.api import PolicyConfig, RequestOutcome, RoutingRequest, Worker, hookimpl
from router_core.cli.router_server import RouterServer
from router_core.config import RouterConfig
from router_core.fleet.pool import WorkerPool
from router_core.plugin_host.discovery import installed_policies

STATE_TIMEOUT_S = 20.0
"""How long a state may take to come about on a busy machine. Never how long it normally takes."""

NO_MORE_CHECKS_S = 86400
"""A health interval no test lives to see the end of."""

ONE_ATTEMPT = {"max_attempts": 1}

CHAT = "/v1/chat/completions"

BUILT_IN = sorted(
    {
        plugin.target: plugin.name
        for plugin in reversed(installed_policies().plugins)  # of two names of one class the first
        if plugin.distribution.startswith("router-policy-")
    }.values()
)
"""The names of the policies of this repository."""

AnyRouter = TypeVar("AnyRouter", bound="Router")


async def until(state: Callable[[], object], what: str = "the state") -> None:
    """Return as soon as `state()` is true; raise TimeoutError if that takes far too long."""
    deadline = time.monotonic() + STATE_TIMEOUT_S
    while not state():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {STATE_TIMEOUT_S:g} s: {what}")
        await asyncio.sleep(0.005)


class Completion(NamedTuple):
    """What an observer was told of the end of one attempt."""

    worker: Worker
    request: RoutingRequest
    outcome: RequestOutcome


@dataclass
class Record:
    """What policy and observers were asked and told, in order.

    Attributes:
        selected: URL of the worker of each selection.
        completed: Each completion.
        first_tokens: URL of the worker of each first token.
    """

    selected: list[str] = field(default_factory=list)
    completed: list[Completion] = field(default_factory=list)
    first_tokens: list[str] = field(default_factory=list)

    @property
    def outcomes(self) -> list[RequestOutcome]:
        return [completion.outcome for completion in self.completed]


_record: ContextVar[Record] = ContextVar("record")


class SelectionWatch:
    """A wrapper that writes down what the policy chose."""

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        self.record = _record.get()

    @hookimpl(wrapper=True)
    def select_single(self):
        worker = yield
        if isinstance(worker, Worker):
            self.record.selected.append(worker.url)
        return worker


class CompletionWatch:
    """An observer that writes down what it is told."""

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        self.record = _record.get()

    @hookimpl
    def on_first_token(self, worker):
        self.record.first_tokens.append(worker.url)

    @hookimpl
    def on_request_complete(self, worker, request, outcome):
        self.record.completed.append(Completion(worker, request, outcome))


def in_house(cls: type) -> str:
    """Return the name under which a config names a class of these tests."""
    return f"{cls.__module__}:{cls.__qualname__}"


class Router:
    """A running router and a client of it.

    Attributes:
        server: The router.
        record: What its plugins were asked and told.
        session: A client; its connections are kept.
        url: Where the router listens.
    """

    def __init__(self, server: RouterServer, record: Record, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.record = record
        self.session = session
        self.url = server.url

    def post(self, path: str = CHAT, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send JSON; use as `async with`."""
        return self.session.post(self.url + path, json=chat() if body is None else body, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.session.get(self.url + path, **options)

    async def ask(self, path: str = CHAT, body: Mapping[str, Any] | None = None) -> str:
        """Send one request, expect success and return the name of the engine that answered."""
        async with self.post(path, body) as response:
            assert response.status == 200, await response.text()
            await response.read()
            return response.headers["x-simulated-engine"]

    async def metrics(self, url: str | None = None) -> dict[str, list[Any]]:
        """Scrape and return all samples by name."""
        async with self.session.get(url or self.server.metrics_url) as response:
            assert response.status == 200
            samples: dict[str, list[Any]] = {}
            for family in text_string_to_metric_families(await response.text()):
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append(sample)
            return samples

    async def policy_facts(self) -> dict[str, Any]:
        """Return what `/health?verbose` says of the policy."""
        async with self.get("/health?verbose") as response:
            return (await response.json())["pools"][0]["policy"]

    def load(self) -> list[tuple[int, int, int]]:
        """Return (load, pending_prompt_tokens, decode_tokens) of each worker."""
        return [
            (worker.load, worker.pending_prompt_tokens, worker.decode_tokens) for worker in self.server.pool.workers
        ]

    def is_settled(self) -> bool:
        """Whether every selection has its completion and no load is left."""
        return len(self.record.selected) == len(self.record.completed) and not any(map(any, self.load()))

    async def settled(self, completions: int) -> list[RequestOutcome]:
        """Wait for that many completions; fail if there are more, or load is left. Return the outcomes."""
        await until(lambda: len(self.record.completed) >= completions, f"{completions} completions")
        assert self.is_settled(), (self.load(), self.record)
        assert len(self.record.completed) == completions
        assert sorted(completion.worker.url for completion in self.record.completed) == sorted(self.record.selected)
        return self.record.outcomes


@contextlib.asynccontextmanager
async def running_router(
    workers: Iterable[Any],
    *,
    policy: Any = "round_robin",
    expect_healthy: int | None = None,
    client_tls: ssl.SSLContext | bool = True,
    **settings: Any,
) -> AsyncIterator[Router]:
    """Run a router before engines (or URLs) and wait until they are healthy.

    Args:
        workers: Simulated engines, scripted servers or URLs.
        policy: As in the config.
        expect_healthy: How many workers to wait for; all of them when not given.
        client_tls: How the session speaks to the router, if that listens with TLS.
        **settings: Further settings; workers are checked once only unless `health` says otherwise, and requests are
            sent again only after a failed connection unless `retries` says otherwise.
    """
    urls = [worker if isinstance(worker, str) else worker.url for worker in workers]
    count = len(urls) if expect_healthy is None else expect_healthy
    config = {"worker_urls": urls, "policy": policy, "wrappers": [in_house(SelectionWatch)], **settings}
    async with serving(
        Router, config, is_ready=lambda pool: len(pool.candidates()) >= count, client_tls=client_tls
    ) as router:
        yield router


@contextlib.asynccontextmanager
async def serving(
    kind: type[AnyRouter],
    config: Mapping[str, Any],
    *,
    is_ready: Callable[[WorkerPool], bool],
    client_tls: ssl.SSLContext | bool = True,
) -> AsyncIterator[AnyRouter]:
    """Run a router in this loop, on any port, with its completions recorded, and wait until its workers are ready."""
    record = Record()
    token = _record.set(record)
    try:
        common = {
            "host": "127.0.0.1",
            "port": 0,
            "observers": ["metrics", in_house(CompletionWatch)],
            "health": {"interval_s": NO_MORE_CHECKS_S},
            "retries": ONE_ATTEMPT,
        }
        server = RouterServer(RouterConfig.model_validate({**common, **config}))
    finally:
        _record.reset(token)
    await server.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=client_tls)) as session:
            await until(lambda: is_ready(server.pool), "healthy workers")
            yield kind(server, record, session)
    finally:
        await server.stop()


def chat(prompt: str = "Say something.", **fields: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": "simulated-model", "messages": [{"role": "user", "content": prompt}], **fields}


class RawClient:
    """A client that writes and reads bytes as it likes, and hangs up when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str, **options: Any) -> RawClient:
        host, _, port = url.partition("://")[2].rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), **options))

    def send(self, body: Mapping[str, Any] | None = None, path: str = CHAT) -> None:
        self.writer.write(request_bytes(body, path))

    async def read_until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(STATE_TIMEOUT_S):
            return await self.reader.readuntil(mark)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers of the next answer."""
        lines = (await self.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def read_answer(self) -> tuple[int, bytes]:
        """Return status and body of the next sized answer."""
        status, headers = await self.read_head()
        async with asyncio.timeout(STATE_TIMEOUT_S):
            return status, await self.reader.readexactly(int(headers["content-length"]))

    async def read_rest(self) -> bytes:
        """Return what comes until the end, which may be a reset."""
        data = b""
        async with asyncio.timeout(STATE_TIMEOUT_S):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    data += piece
        return data

    def hang_up(self) -> None:
        self.writer.transport.abort()

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()


def request_bytes(body: Mapping[str, Any] | None = None, path: str = CHAT) -> bytes:
    """Return a POST request as bytes."""
    data = json.dumps(chat() if body is None else body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data
