"""A simulated inference engine over real HTTP: OpenAI, Anthropic and SGLang APIs, a prefix cache, and faults on demand.

    async with SimulatedEngine(name="a", ttft_s=0.05) as engine:
        ...  # send requests to engine.url
        engine.status = 503

`python -m router_core.testing.simulated_engine --help` runs some in a process of their own.
"""

from __future__ import annotations

import asyncio
import ssl
import string
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from router_core.testing import engine_request
from router_core.testing.engine_app import EngineApp
from router_core.testing.engine_state import EngineState, Fault, SeenRequest

__all__ = ["Fault", "SeenRequest", "SimulatedEngine", "simulated_engines"]

MAX_BODY_BYTES = 1 << 30
_BACKLOG = 4096

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True, eq=False)
class SimulatedEngine(EngineState):
    """An engine in the running event loop, listening while its `async with` lasts, or from `start` to `stop`.

    All knobs of `EngineState` are constructor arguments and attributes. After `stop` it can be started again, on the
    same port; its cache is then empty, as after a crash.

    Attributes:
        tls: Given, it listens with TLS.
    """

    tls: ssl.SSLContext | None = None
    _app: EngineApp | None = field(default=None, init=False)
    _server: web.Server | None = field(default=None, init=False)
    _listener: asyncio.Server | None = field(default=None, init=False)
    _bootstrap: asyncio.Server | None = field(default=None, init=False)
    _bootstrap_server: web.Server | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8001`.

        Raises:
            RuntimeError: If it was never started.
        """
        if not self.port:
            raise RuntimeError(f"engine {self.name!r} has no url before it is started")
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    @property
    def app(self) -> EngineApp:
        """What is inside: `app.cache` and `app.steps`.

        Raises:
            RuntimeError: If it is not running.
        """
        if self._app is None:
            raise RuntimeError(f"engine {self.name!r} is not running")
        return self._app

    def expected_text(self, body: dict[str, Any], *, path: str | None = None, choice: int = 0) -> str:
        """Return what this engine answers to `body`; see `engine_request.expected_text`."""
        return engine_request.expected_text(body, path=path, tokens=self.tokens, choice=choice)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: If the port is taken.
        """
        loop = asyncio.get_running_loop()
        self._app = EngineApp(self)
        server = _make_server(self._app.handle)

        def accept() -> asyncio.Protocol:
            self.connections += 1
            self.changed()
            return server()

        self._listener = await loop.create_server(accept, self.host, self.port, backlog=_BACKLOG, ssl=self.tls)
        self._server = server
        self.port = self._listener.sockets[0].getsockname()[1]
        if self.pd is not None:
            self._bootstrap_server = _make_server(self._app.side_channel.handle)
            self._bootstrap = await loop.create_server(self._bootstrap_server, self.host, self.bootstrap_port)
            self.bootstrap_port = self._bootstrap.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections and stop listening, as when the process is killed."""
        if self._app is None or self._server is None or self._listener is None:
            return
        self._app.is_stopping = True
        for server, listener in ((self._server, self._listener), (self._bootstrap_server, self._bootstrap)):
            if server is not None and listener is not None:
                listener.close()
                _cut(server)
                while server.connections:  # noqa: ASYNC110 - aiohttp tells nobody; a few turns of the loop
                    await asyncio.sleep(0)
                await listener.wait_closed()
        await self._app.close()
        self._app = self._server = self._listener = self._bootstrap = self._bootstrap_server = None

    def cut_connections(self) -> None:
        """Close all connections at once, idle ones too; go on listening."""
        if self._server is not None:
            _cut(self._server)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()


@asynccontextmanager
async def simulated_engines(count: int, **knobs: Any) -> AsyncIterator[list[SimulatedEngine]]:
    """Run several engines alike, named `a`, `b`, `c`, ...

    Args:
        count: How many, at most 26.
        **knobs: As for `SimulatedEngine`, for each of them.
    """
    async with AsyncExitStack() as stack:
        names = string.ascii_lowercase[:count]
        yield [await stack.enter_async_context(SimulatedEngine(name=name, **knobs)) for name in names]


def _make_server(handle: Handle) -> web.Server:
    return web.Server(
        handle,
        request_factory=_make_request,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=3600.0,
        auto_decompress=False,
    )


def _cut(server: web.Server) -> None:
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()


def _make_request(
    message: RawRequestMessage, payload: StreamReader, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


if __name__ == "__main__":
    from router_core.testing.engine_process import main

    sys.exit(main())
