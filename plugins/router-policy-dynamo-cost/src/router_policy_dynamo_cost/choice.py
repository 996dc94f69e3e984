"""Picking by cost: the cheapest, equals at random; or, with a temperature, at random by cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def cheapest(costs: Sequence[float], draw: Callable[[], float]) -> int:
    """Return the place of the least cost; of equals, each with the same chance (reservoir sampling).

    Args:
        costs: At least one.
        draw: Gives numbers from 0 to 1.
    """
    best, equals = 0, 1
    for at in range(1, len(costs)):
        if costs[at] < costs[best]:
            best, equals = at, 1
        elif costs[at] == costs[best]:
            equals += 1
            if draw() * equals < 1:
                best = at
    return best


def softmax(costs: Sequence[float], temperature: float, draw: Callable[[], float]) -> int:
    """Return a place drawn with weights exp(-cost / temperature), costs taken from 0 for the least to 1 for the most.

    Args:
        costs: At least one.
        temperature: Above 0; the higher, the less the costs matter.
        draw: Gives numbers from 0 to 1.
    """
    least = min(costs)
    spread = (max(costs) - least) or 1.0
    weights = [math.exp((least - cost) / spread / temperature) for cost in costs]
    left = draw() * sum(weights)
    for at, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return at
    return len(costs) - 1  # rounding
