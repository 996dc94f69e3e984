"""What the pool's requests are like on the whole: how long they stay, how much they share."""

from __future__ import annotations

from router_policy_predicted_latency.quote import Quote

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
        prefill_s: Seconds of a prefill.
        decoding: Requests that decode on a worker, as of the latest placement.
        elsewhere_s: Seconds it costs a request to wait elsewhere than at the worker it is for.
        found_s: Seconds it costs more to do there without what it finds in that worker's cache.
    """

    __slots__ = ("output_tokens", "hold_s", "hit_rate", "prefill_s", "decoding", "elsewhere_s", "found_s")

    def __init__(self) -> None:
        self.output_tokens = 256.0
        self.hold_s = 5.0
        self.hit_rate = 0.0
        self.prefill_s = 0.0
        self.decoding = 0.0
        self.elsewhere_s = 0.0
        self.found_s = 0.0

    def placed(self, quote: Quote, prompt_tokens: int, matched_tokens: int) -> None:
        """A request was placed.

        Args:
            quote: Where.
            prompt_tokens: Tokens of its prompt.
            matched_tokens: How many of them its worker had.
        """
        self.decoding = quote.mean_decoding
        self.prefill_s += _SHARE * (quote.prefill - self.prefill_s)
        self.elsewhere_s += _SHARE * (_MORE_WAIT * quote.shortest_wait - self.elsewhere_s)
        self.found_s += _SHARE * (quote.found - self.found_s)
        if prompt_tokens > 0:
            self.hit_rate += _HIT_SHARE * (min(1.0, matched_tokens / prompt_tokens) - self.hit_rate)

    def served(self, tokens: int | None, held_s: float) -> None:
        """A request was served."""
        if tokens is not None:
            self.output_tokens += _SHARE * (tokens - self.output_tokens)
        self.hold_s += _SHARE * (held_s - self.hold_s)
