"""What a request would cost where it is cheapest. Plain values."""

from __future__ import annotations

from typing import NamedTuple

from router_policy_predicted_latency.linear_model import Features


class Quote(NamedTuple):
    """The cheapest worker and what its cost is made of, in seconds.

    Attributes:
        position: Its place among the candidates.
        cost: All of it.
        wait: Backlog or memory wait, whichever is longer.
        prefill: x.
        weight: How much a second of prefill counts.
        decode: The decode terms.
        start: What a prefill takes besides its tokens.
        credit: What was taken off.
        shortest_wait: The shortest backlog of all candidates.
        mean_decoding: Requests that decode, on the mean of all candidates.
        found: What its prefill is shorter by for what the worker has.
        spared: What it would have cost less if every candidate had as much of the prompt as any.
        features: What the prefill's time depends on.
        fits: Whether its memory is free.
    """

    position: int
    cost: float
    wait: float
    prefill: float
    weight: float
    decode: float
    start: float
    credit: float
    shortest_wait: float
    mean_decoding: float
    found: float
    spared: float
    features: Features
    fits: bool
