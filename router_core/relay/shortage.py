"""What the router itself may lack for a connection: files, local ports, memory. No worker is to blame for that."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Callable

from router_core.relay.local_answer import ErrorAnswer

_log = logging.getLogger(__name__)

_TELL_EVERY_S = 10.0
_KINDS = {
    errno.EMFILE: "files",
    errno.ENFILE: "files_of_machine",
    errno.EADDRNOTAVAIL: "ports",
    errno.ENOBUFS: "memory",
    errno.ENOMEM: "memory",
}
REMEDIES = {
    "files": "the router has as many files open as it may; raise that (ulimit -n) or lower limits.max_connections",
    "files_of_machine": "the machine has as many files open as it may; raise fs.file-max",
    "ports": "no local port is left to connect from; widen net.ipv4.ip_local_port_range or add routers on other hosts",
    "memory": "the machine has no memory for a socket; give it more or lower limits.max_connections",
}
EXHAUSTED = ErrorAnswer(
    503,
    "router_exhausted",
    "The router has no means left to connect to a worker: ask again soon; its log says what to raise.",
    (("Retry-After", "1"),),  # requests that end give back what they hold
)
"""For whoever asks for what only a worker can answer."""


def shortage_of(error: OSError, host: str, port: int) -> str | None:
    """Return what the router itself lacked when a connection could not be made.

    Args:
        error: Why it could not be.
        host: Where it was to go.
        port: Likewise.

    Returns:
        One of the keys of `REMEDIES`; None when it was not the router's doing.
    """
    if isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
        return None
    kind = _KINDS.get(error.errno or 0)
    if kind == "ports":
        return kind if _can_be_addressed(host, port) else None
    # A look-up of names that may open no file fails with whatever error comes to its mind.
    return kind or _lacks_socket()


def _lacks_socket() -> str | None:
    try:
        socket.socket().close()
    except OSError as error:
        return _KINDS.get(error.errno or 0)
    return None


def _can_be_addressed(host: str, port: int) -> bool:
    """Return whether this machine has any address from which to reach another: the same error says that it has none,
    as for `::1` where IPv6 is off. UDP has ports of its own, and connecting it sends nothing.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
    except OSError:
        return True  # a name: of its addresses all gave this error
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


class Shortages:
    """Connections that could not be made for want of something of the router's own.

    The first of a kind is told in the log at once, those of the next ten seconds with the one that follows them.

    Attributes:
        counts: How many, by what was lacking.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin with none; `now` returns monotonic seconds."""
        self.counts = dict.fromkeys(REMEDIES, 0)
        self._now = now
        self._told: dict[str, tuple[float, int]] = {}  # when last, and the count then

    def note(self, kind: str, base_url: str) -> None:
        """Take note of one.

        Args:
            kind: What was lacking.
            base_url: The worker that could not be connected to.
        """
        count = self.counts[kind] = self.counts[kind] + 1
        now = self._now()
        told_at, told_count = self._told.get(kind, (-_TELL_EVERY_S, 0))
        if now - told_at < _TELL_EVERY_S:
            return
        self._told[kind] = now, count
        silent = count - told_count - 1
        more = f" ({silent} more requests since this was last said)" if silent else ""
        _log.error("no connection to %s: %s%s", base_url, REMEDIES[kind], more)
