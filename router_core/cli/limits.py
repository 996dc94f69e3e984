"""From the settings to what the relay lets a client or a worker take."""

from __future__ import annotations

from router_core.cli.open_files import room
from router_core.config import RouterConfig
from router_core.relay.origin import UpstreamLimits
from router_core.relay.parties import Silence
from router_core.relay.server import DownstreamLimits


def downstream_limits(config: RouterConfig) -> DownstreamLimits:
    """Return what a client may take, of as many clients as there are files for."""
    limits = config.limits
    clients, turned_away = room(limits.max_connections)
    return DownstreamLimits(
        max_connections=clients,
        max_turned_away=turned_away,
        max_head_bytes=limits.max_head_bytes,
        max_body_bytes=limits.max_body_bytes,
        head_timeout_s=limits.head_timeout_s,
        body_timeout_s=limits.body_timeout_s,
        keep_alive_timeout_s=limits.keep_alive_timeout_s,
        request_timeout_s=limits.request_timeout_s,
        max_buffered_bytes=limits.max_buffered_bytes or None,
        client_stall_timeout_s=limits.client_stall_timeout_s,
    )


def upstream_limits(config: RouterConfig) -> UpstreamLimits:
    """Return how long a worker may keep silent."""
    limits = config.limits
    return UpstreamLimits(
        connect_timeout_s=limits.connect_timeout_s,
        idle_timeout_s=limits.upstream_idle_timeout_s,
        silence=Silence(limits.first_byte_timeout_s, limits.stall_timeout_s),
    )
