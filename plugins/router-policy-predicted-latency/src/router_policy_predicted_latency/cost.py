"""What it costs to send a request to each worker, in seconds, and who is cheapest. Changes nothing.

cost(w) = max(backlog, memory_wait) + start + weight * x + decode terms, where

- x: predicted seconds to prefill what w does not have of the prompt;
- backlog: predicted seconds until the prefills sent to w before are over;
- memory_wait: how long until enough memory is free, if the prompt and its answer do not fit beside what runs;
- weight = 1 + hit rate + arrivals at w while it works off its backlog and part of x: every second of prefill also holds
  up those that come meanwhile, and drives out what others would have found in the cache;
- decode terms: how much the request slows down, and is slowed down by, those that decode on w.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from router_core.api import PrefixIndex
from router_policy_predicted_latency.demand import Demand
from router_policy_predicted_latency.linear_model import Features
from router_policy_predicted_latency.worker_state import WorkerState

_LONGEST_QUEUE = 20.0
"""Requests held up that count at most: beyond it the price of a prefill is high enough."""

_OWN_SHARE = 0.4
"""Share of its own prefill in which others come and wait; found best, theory says a half."""


class Quote(NamedTuple):
    """The cheapest worker and what its cost is made of, in seconds.

    Attributes:
        position: Its place among the candidates.
        cost: All of it.
        wait: Backlog or memory wait, whichever is longer.
        prefill: x.
        weight: How much a second of prefill counts.
        decode: The decode terms.
        features: What the prefill's time depends on.
        fits: Whether its memory is free.
    """

    position: int
    cost: float
    wait: float
    prefill: float
    weight: float
    decode: float
    features: Features
    fits: bool


def cheapest(
    states: Sequence[WorkerState],
    matched: Sequence[int],
    prompt_tokens: int,
    *,
    index: PrefixIndex,
    demand: Demand,
    decode_weight: float,
    now: float,
    choose: random.Random,
) -> Quote:
    """Return the cheapest worker for a request or its prefill; ties go to one at random.

    Args:
        states: What is known of the candidates, at least one.
        matched: Tokens of the prompt each has, in the same order.
        prompt_tokens: Tokens of the prompt.
        index: What each holds.
        demand: What requests are like.
        decode_weight: How much a second that decoding requests lose counts.
        now: The pool's time.
        choose: Breaks ties.
    """
    output_tokens = demand.output_tokens
    base_weight = 1.0 + demand.hit_rate
    best: Quote | None = None
    best_cost = float("inf")
    ties = 1
    for position, state in enumerate(states):
        cached = matched[position]
        new = max(1, prompt_tokens - cached)
        pairs = new * (cached + new / 2)
        start_s, token_s, pair_s = state.prefill.coefficients
        prefill_s = token_s * new + pair_s * pairs
        wait_s = backlog_s = state.backlog_s(now)
        capacity = index.capacity_tokens(state.url)
        missing = index.pinned_tokens(state.url) + new + output_tokens * (state.flights + 1) - capacity
        if missing > 0:
            wait_s = max(wait_s, missing / (capacity + 1) * demand.hold_s)
        held_up = state.arrival_rate(now) * (backlog_s + _OWN_SHARE * prefill_s)
        weight = base_weight + min(_LONGEST_QUEUE, held_up)
        _, sequence_s, context_s = state.decode.coefficients
        decoding = state.decoding
        slower_step_s = context_s * state.context_tokens + sequence_s * decoding
        decode_s = decode_weight * (output_tokens * slower_step_s + 2 * prefill_s * decoding)
        cost = wait_s + start_s + weight * prefill_s + decode_s
        if cost > best_cost:
            continue
        if cost == best_cost:
            ties += 1
            if choose.random() * ties >= 1:
                continue
        else:
            ties = 1
        best_cost = cost
        best = Quote(position, cost, wait_s, prefill_s, weight, decode_s, (1.0, float(new), pairs), missing <= 0)
    assert best is not None  # noqa: S101  # there is at least one worker, and no cost is infinite
    return best


def cheapest_decode(
    states: Sequence[WorkerState],
    prompt_tokens: int,
    *,
    index: PrefixIndex,
    demand: Demand,
    now: float,
    choose: random.Random,
) -> tuple[int, float]:
    """Return the position of the worker on which a decode leg goes quickest, and the seconds it takes there."""
    output_tokens = demand.output_tokens
    costs = []
    for state in states:
        step_s, sequence_s, context_s = state.decode.coefficients
        each_s = step_s + context_s * (state.context_tokens + prompt_tokens) + sequence_s * (state.decoding + 1)
        wait_s = state.backlog_s(now)
        capacity = index.capacity_tokens(state.url)
        missing = state.context_tokens + prompt_tokens + output_tokens * (state.flights + 1) - capacity
        if missing > 0:
            wait_s = max(wait_s, missing / (capacity + 1) * demand.hold_s)
        costs.append(wait_s + output_tokens * each_s)
    least = min(costs)
    return choose.choice([position for position, cost in enumerate(costs) if cost == least]), least
