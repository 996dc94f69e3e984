"""How many files the process may have open: each connection is one."""

from __future__ import annotations

import contextlib
import logging
import resource

_log = logging.getLogger(__name__)
_OTHERS = 512  # listeners, logs, clients that are turned away, idle connections to workers


def allow_open_files(connections: int) -> None:
    """Raise the process's own limit as far as it may, and warn if it does not even hold that many clients.

    A request that runs takes two files: its client's connection and its worker's.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHERS // 2
    allowed = soft
    # macOS has a further limit, of the kernel's: who may not have both ends may still have one.
    for wanted in (2 * connections + _OTHERS, needed):
        if allowed == resource.RLIM_INFINITY or allowed >= wanted:
            break
        files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
            allowed = files
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        _log.warning(
            "limits.max_connections is %d, but only %d files may be open: raise that (ulimit -n) or lower this",
            connections,
            allowed,
        )
