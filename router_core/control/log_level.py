"""The level of the log, read and changed while the router runs."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from aiohttp import web

from router_core.control.health import json_response


class LogLevelHandlers:
    """Answers `GET` and `PUT /log_level`.

    Args:
        get: Returns the level's name.
        set_: Changes it; raises ValueError for a name it does not know.
    """

    def __init__(self, get: Callable[[], str], set_: Callable[[str], None]) -> None:
        self._get = get
        self._set = set_

    async def get_log_level(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Tell the level."""
        return json_response({"level": self._get()})

    async def set_log_level(self, request: web.Request) -> web.Response:
        """Change it: `{"level": "debug"}`."""
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError as error:
            return _refused(f"the body is not JSON: {error}")
        level = body.get("level") if isinstance(body, dict) else None
        if not isinstance(level, str):
            return _refused('the body must be an object with a level: {"level": "debug"}')
        try:
            self._set(level)
        except ValueError as error:
            return _refused(str(error))
        return json_response({"level": self._get()})


def _refused(message: str) -> web.Response:
    return json_response({"error": message, "code": "BAD_REQUEST"}, status=400)
