"""What the pool's requests are like on the whole: how long they stay, how much they share."""

from __future__ import annotations

_SHARE = 0.02
_HIT_SHARE = 0.005
"""Share of each new observation in the running means."""

_MORE_WAIT = 10.0
"""What going elsewhere costs, in waits in the shortest queue; found best. Theory says more than 1: whoever goes there
holds up others, who go elsewhere in turn."""


class Demand:
    """Running means over one pool.

    Attributes:
        output_tokens: Tokens of an answer.
        hold_s: Seconds a request holds its memory, from the begin of its prefill on.
        hit_rate: Share of prompts' tokens that workers had.
        elsewhere_s: Seconds it costs a request to go elsewhere than to the worker it is for.
    """

    __slots__ = ("output_tokens", "hold_s", "hit_rate", "elsewhere_s")

    def __init__(self) -> None:
        self.output_tokens = 256.0
        self.hold_s = 5.0
        self.hit_rate = 0.0
        self.elsewhere_s = 0.0

    def placed(self, prompt_tokens: int, matched_tokens: int, shortest_wait_s: float, found_s: float) -> None:
        """A request was placed.

        Args:
            prompt_tokens: Tokens of its prompt.
            matched_tokens: How many of them its worker had.
            shortest_wait_s: The shortest backlog of all workers.
            found_s: What its prefill is shorter by for what the worker had.
        """
        self.elsewhere_s += _SHARE * (_MORE_WAIT * shortest_wait_s + found_s - self.elsewhere_s)
        if prompt_tokens > 0:
            self.hit_rate += _HIT_SHARE * (min(1.0, matched_tokens / prompt_tokens) - self.hit_rate)

    def served(self, tokens: int | None, held_s: float) -> None:
        """A request was served."""
        if tokens is not None:
            self.output_tokens += _SHARE * (tokens - self.output_tokens)
        self.hold_s += _SHARE * (held_s - self.hold_s)
