"""SGLang's JSON about its load: `/v1/loads`, and `/get_load` of older releases. No I/O.

Shapes seen:

1. `/v1/loads`: an object with a list `loads`, one entry for each data-parallel rank.
2. `/v1/loads` of some builds: the sum in an object `aggregate`, with or without `loads`.
3. `/get_load`: a list of `{dp_rank, num_reqs, num_waiting_reqs, num_tokens}`; `num_reqs` includes the waiting.
"""

from __future__ import annotations

from typing import Any

import orjson

from router_core.fleet.telemetry.reading import Reading, count, merged, share


def parse_loads(body: bytes, rank: int | None = None) -> Reading | None:
    """Read an answer of `/v1/loads` or `/get_load`.

    Args:
        body: The answer.
        rank: Which data-parallel rank to read; None for the engine as a whole.

    Returns:
        The reading, or None when the answer tells nothing of what was asked for.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    entries = document.get("loads") if isinstance(document, dict) else document
    ranks = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if rank is not None:
        ranks = [entry for entry in ranks if entry.get("dp_rank") == rank]
    elif not ranks and isinstance(document, dict):
        aggregate = document.get("aggregate", document)
        ranks = [aggregate] if isinstance(aggregate, dict) else []
    reading = merged([_entry(entry) for entry in ranks])
    return None if reading.is_empty else reading


def _entry(entry: dict[str, Any]) -> Reading:
    waiting = _first_count(entry, "num_waiting_reqs", "total_waiting_reqs")
    running = _first_count(entry, "num_running_reqs", "total_running_reqs")
    total = _first_count(entry, "num_total_reqs", "num_reqs", "total_reqs")
    if running is None and waiting is not None and total is not None and total >= waiting:
        running = total - waiting
    return Reading(running, waiting, _first_count(entry, "num_waiting_uncached_tokens"), _cache_usage(entry))


def _cache_usage(entry: dict[str, Any]) -> float | None:
    for name in ("token_usage", "avg_token_usage"):
        usage = share(entry.get(name))
        if usage is not None:
            return usage
    used, size = _first_count(entry, "num_used_tokens"), _first_count(entry, "max_total_num_tokens")
    return share(used / size) if used is not None and size else None


def _first_count(entry: dict[str, Any], *names: str) -> int | None:
    return next((number for name in names if (number := count(entry.get(name))) is not None), None)
