"""Addresses to listen on: what cannot be had, and what is the router itself."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from router_core.contract.errors import StartupError

ADMIN_HOST = "127.0.0.1"
"""Where a port for administration is if nothing else is said."""

ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, not listened on
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0"})  # noqa: S104


def url_of(host: str, port: int, *, scheme: str = "http") -> str:
    """Return the URL of an address."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextlib.contextmanager
def listening(prefix: str, host: str, port: int) -> Iterator[None]:
    """Turn a failure to listen into a sentence; `prefix` is that of the two settings."""
    try:
        yield
    except OSError as error:
        # asyncio puts a sentence of its own, with the address in it, before the system's
        code = error.errno or 0
        reason = os.strerror(code) if code in errno.errorcode else error.strerror or str(error)
        flags = f"--{prefix}port or --{prefix}host".replace("_", "-")
        sentence = (
            f"{prefix}host, {prefix}port: cannot listen on {host}, port {port}: {reason}; choose another with {flags}"
        )
        raise StartupError([sentence]) from error


def refuse_own_address(worker_urls: Iterable[str], address: tuple[str, int]) -> None:
    """Refuse a worker that is this router: one request would go round until there are no sockets left."""
    for url in worker_urls:
        if is_own_address(url, address):
            raise StartupError([f"worker_urls: {url} is this router itself; name the workers, or change --port"])


def is_own_address(url: str, address: tuple[str, int]) -> bool:
    """Return whether a URL leads to the address that the router listens on."""
    host, port = address
    own = {host, *(LOOPBACK if host in ANYWHERE | LOOPBACK else ())}
    parts = urlsplit(url)
    return parts.port == port and parts.hostname in own
