"""How figures become scores from 0 to 1. Who has no figure, None, scores as the others do on average."""

from __future__ import annotations

from collections.abc import Sequence

NEUTRAL = 0.5


def least_is_best(figures: Sequence[float | None]) -> list[float]:
    """Return 1 for the least figure, 0 for the greatest, in proportion between; all the same when they are alike."""
    known = [figure for figure in figures if figure is not None]
    greatest = max(known, default=0)
    spread = greatest - min(known, default=0)
    if not spread:
        return [NEUTRAL] * len(figures)
    return _filled([None if figure is None else (greatest - figure) / spread for figure in figures])


def share_left(figures: Sequence[float | None], limit: float) -> list[float]:
    """Return 1 for a figure of 0, 0 for one of `limit` or more."""
    return _filled([None if figure is None else 1 - min(1.0, max(0.0, figure / limit)) for figure in figures])


def prefix_score(cached: int, prompt: int, length_weight: float) -> float:
    """Return how good a cached prefix is: by its share of the prompt, and by its length as far as that has weight."""
    by_share = min(1.0, cached / prompt) if prompt else 0.0
    by_length = min(1.0, cached / _LONG_PREFIX_TOKENS) ** 2
    return length_weight * by_length + (1 - length_weight) * by_share


def _filled(scores: Sequence[float | None]) -> list[float]:
    known = [score for score in scores if score is not None]
    mean = sum(known) / len(known) if known else NEUTRAL
    return [mean if score is None else score for score in scores]


_LONG_PREFIX_TOKENS = 8192
