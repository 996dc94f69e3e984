"""What the pool's requests are like on the whole: how long they stay, how much they share."""

from __future__ import annotations

_SHARE = 0.02
_HIT_SHARE = 0.005
"""Share of each new observation in the running means."""


class Demand:
    """Running means over one pool.

    Attributes:
        output_tokens: Tokens of an answer.
        hold_s: Seconds a request holds its memory, from the begin of its prefill on.
        hit_rate: Share of prompts' tokens that workers had.
    """

    __slots__ = ("output_tokens", "hold_s", "hit_rate")

    def __init__(self) -> None:
        self.output_tokens = 256.0
        self.hold_s = 5.0
        self.hit_rate = 0.0

    def placed(self, prompt_tokens: int, matched_tokens: int) -> None:
        """A request was placed."""
        if prompt_tokens > 0:
            self.hit_rate += _HIT_SHARE * (min(1.0, matched_tokens / prompt_tokens) - self.hit_rate)

    def served(self, tokens: int | None, held_s: float) -> None:
        """A request was served."""
        if tokens is not None:
            self.output_tokens += _SHARE * (tokens - self.output_tokens)
        self.hold_s += _SHARE * (held_s - self.hold_s)
