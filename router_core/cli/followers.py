"""Who follows requests through the router, by the config."""

from __future__ import annotations

import random
import time

from router_core.config import RouterConfig
from router_core.observability.access_log import AccessLog
from router_core.traffic.decision_headers import decision_headers
from router_core.traffic.following import Follow


def build_followers(config: RouterConfig) -> list[Follow]:
    """Return all who may want to follow a request."""
    followers: list[Follow] = []
    if config.decision_headers != "off":
        followers.append(decision_headers(config.decision_headers))
    if config.access_log != "off":
        followers.append(
            AccessLog(
                config.access_log,
                ratio=config.access_log_ratio,
                random=random.Random(),  # noqa: S311  # samples requests
                now=time.monotonic,
            ).follow
        )
    return followers
