"""Picking by score: the highest, equals at random; or drawn with the scores as weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def highest(scores: Sequence[float], draw: Callable[[], float]) -> int:
    """Return the place of the highest score; of equals, each with the same chance."""
    best = max(scores)
    equals = [at for at, score in enumerate(scores) if best - score <= _SAME]
    return equals[0] if len(equals) == 1 else equals[int(draw() * len(equals))]


def weighted_random(scores: Sequence[float], draw: Callable[[], float]) -> int:
    """Return a place drawn with the scores as weights; with the same chance for all if none is above 0."""
    total = sum(scores)
    if total <= 0:
        return int(draw() * len(scores))
    left = draw() * total
    for at, score in enumerate(scores):
        left -= score
        if left < 0:
            return at
    return len(scores) - 1  # rounding


_SAME = 1e-9
"""Sums of like terms differ by less, whatever order they were added in."""
