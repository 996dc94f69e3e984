"""What one engine, or one of its data-parallel ranks, said of its load once. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_ROUNDING = 1e-3


class Reading(NamedTuple):
    """The figures of one answer; None for those it does not tell.

    Attributes:
        running_requests: Requests being computed.
        waiting_requests: Requests queued.
        waiting_tokens: Uncached prompt tokens queued.
        cache_usage: Share of the KV cache in use, 0 to 1.
    """

    running_requests: int | None = None
    waiting_requests: int | None = None
    waiting_tokens: int | None = None
    cache_usage: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it tells nothing at all."""
        return all(figure is None for figure in self)


def merged(ranks: Sequence[Reading]) -> Reading:
    """Return what the ranks of an engine amount to.

    Requests and tokens add up. Of the cache shares the greatest counts: the fullest rank is the one that has to make
    room. A figure that one rank does not tell is unknown for all: half a sum would look like an idle engine.
    """
    usages = [rank.cache_usage for rank in ranks]
    known = [usage for usage in usages if usage is not None]
    return Reading(
        _total(rank.running_requests for rank in ranks),
        _total(rank.waiting_requests for rank in ranks),
        _total(rank.waiting_tokens for rank in ranks),
        max(known) if known and len(known) == len(usages) else None,
    )


def count(value: Any) -> int | None:
    """Return a number of things, or None if `value` is none (`Any`: it comes out of an engine's JSON)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return int(value)


def share(value: Any) -> float | None:
    """Return a share from 0 to 1, or None if `value` is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 + _ROUNDING:
        return None
    return min(float(value), 1.0)


def _total(figures: Iterable[int | None]) -> int | None:
    total: int | None = None
    for figure in figures:
        if figure is None:
            return None
        total = figure if total is None else total + figure
    return total
