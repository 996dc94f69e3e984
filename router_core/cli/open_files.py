"""How many files the process may have open, and what that lets it take: each connection is one."""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import NamedTuple

_log = logging.getLogger(__name__)
_OTHERS = 512  # listeners, logs, clients that are turned away, idle connections to workers
_OWN = 24  # listeners, logs, checks of workers' health: what a router has open before its first client
_TURNED_AWAY = 256


class Room(NamedTuple):
    """How many clients there are files for.

    Attributes:
        clients: Who may ask.
        turned_away: Who beside them may at least be told that there are too many.
    """

    clients: int
    turned_away: int


def allow_open_files(connections: int) -> None:
    """Raise the process's own limit as far as it may, and warn if it does not even hold that many clients.

    A request that runs takes two files: its client's connection and its worker's.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = soft
    # macOS has a further limit, of the kernel's: who may not have both ends may still have one.
    for wanted in (2 * connections + _OTHERS, connections + _OTHERS // 2):
        if allowed == resource.RLIM_INFINITY or allowed >= wanted:
            break
        files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
            allowed = files
    clients = room(connections).clients
    if clients < connections:
        _log.warning(
            "limits.max_connections is %d, but only %d files may be open: no more than %d clients are taken; "
            "raise that (ulimit -n) or lower this",
            connections,
            allowed,
            clients,
        )


def room(connections: int) -> Room:
    """Return how many clients to take so that files are left to connect to their workers with.

    Clients that had them all would keep anybody from being served, even while they are idle.

    Args:
        connections: How many are to be taken at most.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return Room(connections, _TURNED_AWAY)
    spare = max(4, allowed - _OWN)
    clients = min(connections, max(allowed - _OTHERS // 2, spare * 2 // 5))
    return Room(clients, min(_TURNED_AWAY, (spare - clients) // 4))
