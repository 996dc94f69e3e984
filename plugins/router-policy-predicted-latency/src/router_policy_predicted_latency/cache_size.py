"""How large each worker's cache is, learned from what engines say they had of a prompt."""

from __future__ import annotations

from router_core.api import PrefixIndex
from router_policy_predicted_latency.flight import Flight

FIRST_GUESS_TOKENS = 2_000_000
"""Rather too large: a cache believed too small is given up for lost, and nothing ever shows that it was not."""

_SMALLEST_TOKENS = 16_384
_LARGEST_TOKENS = 64_000_000
_SHRINK = 0.98
_GROW = 1.04
_SLACK_TOKENS = 640
_SLACK_SHARE = 0.05
"""Blocks, chat templates and estimates of tokens make small differences that say nothing of a cache's size."""

_WORTH_ASKING_TOKENS = 1024
_LOST_SHARE = 0.1


class CacheSizes:
    """Corrects the capacities in a `PrefixIndex`.

    A prompt whose believed part was gone says that the worker holds less than the mirror does; one that had more says
    that the mirror forgets too early. Without reports of cached tokens nothing changes.
    """

    def __init__(self, index: PrefixIndex) -> None:
        self._index = index

    def learn(self, flight: Flight, prompt_tokens: int | None, cached_tokens: int | None) -> None:
        """Compare what a worker had with what was believed.

        Args:
            flight: The request, which has been served.
            prompt_tokens: What the engine says the prompt had, or None.
            cached_tokens: What it says it had of it, or None.
        """
        placement = flight.placement
        if placement is None or cached_tokens is None or not prompt_tokens:
            return
        cached = cached_tokens * flight.prompt_tokens / prompt_tokens
        believed = placement.computed_tokens
        state = flight.state
        # 1. It was away: is its cache lost?
        if state.is_suspect and believed >= _WORTH_ASKING_TOKENS:
            state.is_suspect = False
            if cached < _LOST_SHARE * believed:
                self._index.forget(state.url)
                return
        # 2. It had less than believed, or more.
        slack = _SLACK_TOKENS + _SLACK_SHARE * flight.prompt_tokens
        index, url = self._index, state.url
        if cached < believed - slack:
            held = min(index.capacity_tokens(url), index.tokens(url))
            capacity = max(_SMALLEST_TOKENS, int(held * _SHRINK))
        elif cached > placement.matched_tokens + slack:
            capacity = min(_LARGEST_TOKENS, int(index.capacity_tokens(url) * _GROW))
        else:
            return
        index.set_capacity(url, capacity)
        state.capacity_tokens = capacity
