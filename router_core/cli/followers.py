"""Who follows requests through the router, by the config."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

from router_core.config import RouterConfig
from router_core.observability.access_log import AccessLog
from router_core.observability.tracing import Tracing
from router_core.relay.server import RelayServer
from router_core.traffic.decision_headers import decision_headers
from router_core.traffic.following import Follow
from router_core.traffic.paths import route_of


def build_followers(config: RouterConfig, stack: contextlib.AsyncExitStack, relay: RelayServer) -> list[Follow]:
    """Return all who may want to follow a request.

    Args:
        config: The settings.
        stack: Ends what has to be ended.
        relay: Tells of requests that it refuses, for nobody gets to follow these.

    Raises:
        StartupError: If a library is missing.
    """
    followers: list[Follow] = []
    if config.tracing.endpoint is not None:  # first, so that its head is the one that is sent
        tracing = Tracing(
            endpoint=config.tracing.endpoint,
            sample_ratio=config.tracing.sample_ratio,
            service_name=config.tracing.service_name,
            route_of=route_of,
        )
        stack.push_async_callback(asyncio.to_thread, tracing.stop)
        followers.append(tracing.follow)
    if config.decision_headers != "off":
        followers.append(decision_headers(config.decision_headers))
    if config.access_log != "off":
        access_log = AccessLog(
            config.access_log,
            ratio=config.access_log_ratio,
            random=random.Random(),  # noqa: S311  # samples requests
            now=time.monotonic,
        )
        followers.append(access_log.follow)
        relay.on_refused = access_log.write_refusal
    return followers
