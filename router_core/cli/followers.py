"""Who follows requests through the router, by the config."""

from __future__ import annotations

from router_core.config import RouterConfig
from router_core.traffic.decision_headers import decision_headers
from router_core.traffic.following import Follow


def build_followers(config: RouterConfig) -> list[Follow]:
    """Return all who may want to follow a request."""
    followers: list[Follow] = []
    if config.decision_headers != "off":
        followers.append(decision_headers(config.decision_headers))
    return followers
