"""The forms in which a simulated engine answers: JSON and errors, with its name in the headers."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import orjson
from aiohttp import web

from router_core.testing.engine_state import EngineState

JSON = "application/json"


class Answers:
    """Makes whole answers for an engine."""

    def __init__(self, state: EngineState) -> None:
        self._state = state

    def headers(self, content_type: str) -> dict[str, str]:
        """Return the headers of every answer."""
        return {"content-type": content_type, "x-simulated-engine": self._state.name}

    def json(self, answer: object, status: int = 200) -> web.Response:
        """Return JSON."""
        return web.Response(body=orjson.dumps(answer), status=status, headers=self.headers(JSON))

    def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        """Return an error, as vLLM words it."""
        kinds = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 503: "ServiceUnavailableError"}
        kind = kinds.get(status, "InternalServerError")
        error = {"message": message, "type": kind, "param": None, "code": status}
        response = self.json({"error": error}, status)
        response.headers.update(headers or {})
        if self._state.closes_connections:
            response.force_close()
        return response


async def forever() -> NoReturn:
    """Wait until cancelled, which is when the client leaves."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody resolves this future")
