"""A worker that answers anything plausibly and keeps what it was sent, byte for byte."""

from __future__ import annotations

import json
from typing import NamedTuple

from aiohttp import web

from router_core.testing.waiting import WAIT_S, Waiters


class Received(NamedTuple):
    """One request as it arrived.

    Attributes:
        path: Path and query.
        headers: By lower-case name.
        body: The bytes.
    """

    path: str
    headers: dict[str, str]
    body: bytes


class RecordingWorker:
    """Keeps requests by their `x-request-id`, as an asynchronous context manager.

    Attributes:
        url: Where it listens.
        received: What came, by request id.
    """

    def __init__(self) -> None:
        self.url = ""
        self.received: dict[str, Received] = {}
        self._waiters = Waiters()

    async def has_received(self, count: int) -> None:
        """Wait until so many requests have come."""
        await self._waiters.wait(lambda: len(self.received) >= count, WAIT_S, lambda: f"{len(self.received)} requests")

    async def __aenter__(self) -> RecordingWorker:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        name = request.headers.get("x-request-id")
        if request.method == "GET" or name is None:
            facts = {"model_path": "m", "served_model_name": "m", "data": [{"id": "m", "object": "model"}]}
            return web.json_response(facts)
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.received[name] = Received(request.path_qs, headers, body)
        self._waiters.changed()
        if json.loads(body).get("stream"):
            return web.Response(text="data: [DONE]\n\n", content_type="text/event-stream")
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                "text": "a",
                "meta_info": {"id": "x", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": {"type": "stop"}},
            }
        )
