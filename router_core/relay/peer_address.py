"""How a client's address is written where people read it."""

from __future__ import annotations


def peer_address(name: object) -> str:
    """Return host and port of a peer's name, as sockets and transports give it; empty if there is none."""
    if not isinstance(name, tuple) or len(name) < 2:
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
