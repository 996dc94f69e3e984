"""How many files the process may have open: each connection is one."""

from __future__ import annotations

import logging
import resource

_log = logging.getLogger(__name__)
_OTHERS = 256  # listeners, logs, connections to workers that wait for the next request


def allow_open_files(connections: int) -> None:
    """Raise the process's own limit as far as it may, and warn if it does not hold that many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (ValueError, OSError):  # macOS has a further limit, of the kernel's
            allowed = soft
        if allowed < wanted:
            _log.warning(
                "limits.max_connections is %d, but only %d files may be open: raise that (ulimit -n) or lower this",
                connections,
                allowed,
            )
