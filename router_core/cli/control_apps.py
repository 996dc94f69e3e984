"""How the control plane's applications are reached: behind the relay, or at an address of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from aiohttp import web

from router_core.cli.addresses import listening
from router_core.control.metrics import RenderMetrics, metrics_app
from router_core.relay.control_origin import ControlOrigin
from router_core.relay.parties import Destination


async def control_origin(stack: contextlib.AsyncExitStack, app: web.Application) -> Destination:
    """Run an application to which the relay hands requests."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None  # noqa: S101  # set by setup()
    return ControlOrigin(runner.server)


async def listen_for_metrics(
    stack: contextlib.AsyncExitStack, render: RenderMetrics, host: str, port: int
) -> tuple[str, int]:
    """Serve `/metrics` at an address of its own and return that.

    Raises:
        StartupError: The address cannot be had.
    """
    runner = web.AppRunner(metrics_app(render), access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port)
    with listening("prometheus_", host, port):
        await site.start()
    address = runner.addresses[0]
    return address[0], address[1]


def is_path_of(app: web.Application) -> Callable[[bytes], bool]:
    """Return whether a path belongs to the control plane, its own by name and what lies below `/v1/models/`."""
    names = [resource.canonical.encode() for resource in app.router.resources()]
    exact = frozenset(name for name in names if b"{" not in name)
    below = tuple(name.partition(b"{")[0] for name in names if b"{" in name)
    return lambda path: path in exact or path.startswith(below)
