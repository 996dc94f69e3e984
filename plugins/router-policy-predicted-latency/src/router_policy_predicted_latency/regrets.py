"""How much waiting it would have spared if one more worker had the beginning of a prompt. Knows nothing of routers."""

from __future__ import annotations

import math

_FADE_S = 5.0
"""A regret of so long ago counts for a third."""

_BURST_S = 0.1
"""Requests that come closer together than this count for less: a burst alone says nothing of those to come."""

_MOST = 8192
"""Beginnings to keep; old ones go when there are more."""


class Regrets:
    """Seconds by beginning, a block's hash; they fade.

    To compute a beginning anew on one more worker never pays for a single request. Whether to do it is the problem of
    renting or buying: rent until what was paid would have bought it.
    """

    __slots__ = ("_regrets",)

    def __init__(self) -> None:
        self._regrets: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._regrets)

    def seconds(self, beginning: int, now: float) -> float:
        """Return what is regretted of a beginning."""
        known = self._regrets.get(beginning)
        if known is None or not known[0]:
            return 0.0
        return known[0] * math.exp((known[1] - now) / _FADE_S)

    def add(self, beginning: int, seconds: float, spared_s: float, now: float) -> None:
        """A request went to a worker that had it.

        Args:
            beginning: What one more worker might have had.
            seconds: What `seconds` says now.
            spared_s: What the request would have been spared.
            now: The time.
        """
        known = self._regrets.get(beginning)
        if known is None:
            if len(self._regrets) >= _MOST:
                self._forget(now)
            self._regrets[beginning] = 0.0, now
            return
        share = (now - known[1]) / _BURST_S
        self._regrets[beginning] = seconds + (spared_s if share >= 1 else share * spared_s), now

    def spend(self, beginning: int, seconds: float, spent_s: float, now: float) -> None:
        """One more worker gets it: of `seconds`, `spent_s` is made good."""
        if beginning in self._regrets:
            self._regrets[beginning] = seconds - spent_s, now

    def _forget(self, now: float) -> None:
        recent = {each: known for each, known in self._regrets.items() if now - known[1] < _FADE_S}
        self._regrets = recent if len(recent) < _MOST // 2 else {}
