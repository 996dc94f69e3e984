"""What it costs to send a request to each worker, in seconds, and who is cheapest. Changes nothing.

cost(w) = max(backlog, memory_wait) + start + weight * x + decode terms - credit, where

- x: predicted seconds to prefill what w does not have of the prompt;
- backlog: predicted seconds until the prefills sent to w before are over;
- memory_wait: how long until enough memory is free, if the prompt and its answer do not fit beside what runs;
- weight = 1 + 1.5 * hit rate * how full w's cache is + requests a second that come meanwhile * min(backlog + part of x,
  elsewhere): every second of prefill also drives out what others would have found in the cache, and holds up those that
  come. Conversations that are expected back on w and all others are told apart;
- elsewhere: what it costs to go to another worker, so the longest anyone is held up; for a conversation also to compute
  there what it would have found here. Without that bound the worker that others avoid for its backlog, and that
  therefore holds up nobody, would be the cheapest for every long prompt;
- decode terms: how much the request and those that decode on w slow each other down, and how long its prefill holds
  decodes up. What has to be computed holds somebody up wherever that is, so it counts with the mean of all workers;
  but who takes long in any case had better go where few decode;
- credit: at most what w would compute anew although others have it, and what requests that began alike would have been
  spared if w had had it; less the longer its backlog is, since there is little time for such work then.

It is called for each request: what does not depend on the request is kept ready in the workers' states.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from router_core.api import PrefixIndex
from router_policy_predicted_latency.demand import Demand
from router_policy_predicted_latency.quote import Quote
from router_policy_predicted_latency.worker_state import WorkerState

_OWN_SHARE = 0.4
"""Share of its own prefill in which others come and wait; found best, theory says a half."""

_DRIVEN_OUT = 1.5
"""How many seconds of prefill a second of it drives out of a full cache of which everything is asked for again; found
best, theory says 1."""

_HELD_UP = 0.75
"""How much longer each request that decodes takes for a second of prefill; found best, theory says 1."""

_CONGESTION = 8.0
"""How much higher the price of a beginning is for each request that would come before that worker's backlog is over:
what is idle may well be spent on those to come."""


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
    most: int,
    is_uneven: bool = False,
    regret_s: float = 0.0,
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
        most: The most in `matched`.
        is_uneven: Whether others have less.
        regret_s: What requests that began alike would have been spared if all had as much.
    """
    output_tokens = demand.output_tokens
    driven_out = _DRIVEN_OUT * demand.hit_rate
    elsewhere_s = demand.elsewhere_s
    returns_elsewhere_s = elsewhere_s + demand.found_s
    mean_decoding = demand.decoding
    usual_s = demand.prefill_s
    rest = prompt_tokens - most
    if rest < 1:
        rest = 1
    rest_pairs = rest * (most + rest / 2)
    best_cost = least = shortest_wait_s = float("inf")
    best: tuple[int, float, float, float, float, float, float, int, float, bool] | None = None
    credit_s = 0.0
    all_decoding = 0
    ties = 1
    position = -1
    for state in states:
        position += 1
        decoding = state.decoding
        all_decoding += decoding
        start_s, token_s, pair_s = state.prefill.coefficients
        if not state.is_behind:
            wait_s = backlog_s = 0.0
        elif now <= state.head_due:
            wait_s = backlog_s = state.queue_due - now
        else:
            wait_s = backlog_s = state.backlog_s(now)
        if wait_s < shortest_wait_s:
            shortest_wait_s = wait_s
        if wait_s + start_s > best_cost:
            continue
        cached = matched[position]
        new = prompt_tokens - cached
        if new < 1:
            new = 1
        pairs = new * (cached + new / 2)
        prefill_s = token_s * new + pair_s * pairs
        # What is in flight, shared or not, and how much all answers will be: mostly that fits.
        capacity = state.capacity_tokens
        missing = state.prompt_tokens + new + output_tokens * (state.flights + 1) - capacity
        if missing > 0:
            missing += index.pinned_tokens(state.url) - state.prompt_tokens
            if missing > 0:
                wait_s = max(wait_s, missing / (capacity + 1) * demand.hold_s)
        held_up_s = backlog_s + _OWN_SHARE * prefill_s
        return_rate, other_rate = state.return_rate, state.other_rate
        weight = (
            1.0
            + driven_out * state.fill
            + return_rate * (held_up_s if held_up_s < returns_elsewhere_s else returns_elsewhere_s)
            + other_rate * (held_up_s if held_up_s < elsewhere_s else elsewhere_s)
        )
        rest_s = token_s * rest + pair_s * rest_pairs
        decodes_held_up_s = mean_decoding * prefill_s
        if rest_s > usual_s:
            decodes_held_up_s += (decoding - mean_decoding) * (rest_s - usual_s)
        slower_step_s = state.slower_step_s + state.slower_token_s * prompt_tokens
        decode_s = decode_weight * (output_tokens * slower_step_s + _HELD_UP * decodes_held_up_s)
        cost = wait_s + start_s + weight * prefill_s + decode_s
        if is_uneven:
            if cached < most:
                price = (weight + decode_weight * _HELD_UP * mean_decoding) * (prefill_s - rest_s)
                if cost - price < least:
                    least = cost - price
                if regret_s:
                    credit_s = min(regret_s / (1 + _CONGESTION * (return_rate + other_rate) * backlog_s), price)
                    cost -= credit_s
            else:
                credit_s = 0.0
                if cost < least:
                    least = cost
        if cost > best_cost:
            continue
        if cost == best_cost:
            ties += 1
            if choose.random() * ties >= 1:
                continue
        else:
            ties = 1
        best_cost = cost
        best = position, wait_s, prefill_s, weight, decode_s, start_s, credit_s, new, pairs, missing <= 0
    assert best is not None  # noqa: S101  # there is at least one worker, and no cost is infinite
    position, wait_s, prefill_s, weight, decode_s, start_s, credit_s, new, pairs, fits = best
    spared_s = max(0.0, best_cost - least) if is_uneven else 0.0
    _, token_s, pair_s = states[position].prefill.coefficients
    cold_s = token_s * prompt_tokens + pair_s * prompt_tokens * prompt_tokens / 2
    return Quote(
        position,
        best_cost,
        wait_s,
        prefill_s,
        weight,
        decode_s,
        start_s,
        credit_s,
        shortest_wait_s,
        all_decoding / len(states),
        cold_s - prefill_s,
        spared_s,
        (1.0, float(new), pairs),
        fits,
    )


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
