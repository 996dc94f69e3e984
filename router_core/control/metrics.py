"""The exposition of metrics, on the router's own port or on one of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from router_core.control.errors import Handler, json_app

RenderMetrics = Callable[[], Awaitable[tuple[bytes, str]]]
"""Returns the exposition and its content type."""


def metrics_handler(render: RenderMetrics) -> Handler:
    """Return a handler that answers with the metrics."""

    async def metrics(request: web.Request) -> web.Response:  # noqa: ARG001  # a handler takes the request
        body, content_type = await render()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    return metrics


def metrics_app(render: RenderMetrics) -> web.Application:
    """Return an application that serves nothing but `/metrics`, for a port that clients do not reach."""
    app = json_app()
    app.router.add_get("/metrics", metrics_handler(render))
    return app
