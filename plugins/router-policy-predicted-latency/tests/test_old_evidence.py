"""A worker that was slow once is not held for slow for ever, one that is slow is not asked again and again."""

import heapq
import random

import pytest

from router_core.testing.conformance import PolicyHarness, make_request
from router_policy_predicted_latency import PredictedLatencyPolicy

PREFILL_S = 0.06
DECODE_S = 0.03


def serve(load, prefill_s, *, seconds=90.0, workers=4, seed=1):
    """Let four equal workers serve short prompts one at a time, but for the first, which takes `prefill_s(count, now)`.

    Returns:
        Of each request: when it came, whether the first worker got it, seconds until its first token.
    """
    rng = random.Random(seed)
    harness = PolicyHarness(PredictedLatencyPolicy(PredictedLatencyPolicy.Config()), workers, seed=seed)
    odd = harness.workers[0].url
    free_at = dict.fromkeys((worker.url for worker in harness.workers), 0.0)
    served, events, now, number = [], [], 0.0, 0
    arrival = rng.expovariate(load * workers / PREFILL_S)
    while events or arrival < seconds:
        due = min(arrival, events[0][0]) if events else arrival
        harness.pool.advance(due - now)
        now = due
        if not events or arrival < events[0][0]:
            attempt = harness.select(make_request(f"{number:06d}" + " word" * 800))
            url = attempt.worker.url
            is_odd = url == odd
            took_s = prefill_s(sum(each[1] for each in served), now) if is_odd else PREFILL_S
            free_at[url] = max(now, free_at[url]) + took_s
            served.append((now, is_odd, free_at[url] - now))
            heapq.heappush(events, (free_at[url], number, attempt, False))
            number += 1
            arrival = now + rng.expovariate(load * workers / PREFILL_S)
            if arrival >= seconds:
                arrival = float("inf")
            continue
        _, order, attempt, has_begun = heapq.heappop(events)
        if has_begun:
            attempt.complete(prompt_tokens=1000, cached_tokens=0, completion_tokens=5)
        else:
            attempt.first_token()
            heapq.heappush(events, (now + DECODE_S, order, attempt, True))
    return served


def share(served, since, until):
    picks = [is_odd for at, is_odd, _ in served if since <= at < until]
    return sum(picks) / len(picks)


def p90_s(served):
    waits = sorted(wait_s for _, _, wait_s in served)
    return waits[int(0.9 * len(waits))]


@pytest.mark.parametrize("load", [0.3, 0.5])
def test_one_slow_first_prefill_is_forgiven_at_once(load):
    served = serve(load, lambda count, _: 3.0 if count == 0 else PREFILL_S, seconds=30)
    assert share(served, 5, 30) > 0.2


@pytest.mark.parametrize("load", [0.3, 0.5])
def test_a_worker_that_was_slow_at_first_is_back_within_a_minute(load):
    served = serve(load, lambda count, _: 3.0 if count < 3 else PREFILL_S)
    assert share(served, 60, 90) > 0.15


def test_a_worker_that_recovered_gets_its_share_again():
    served = serve(0.5, lambda _, now: 10 * PREFILL_S if 20 < now < 30 else PREFILL_S)
    assert share(served, 23, 30) < 0.1
    assert share(served, 70, 90) > 0.2


def test_a_worker_that_stays_slow_gets_little_and_the_others_do_not_suffer():
    served = serve(0.4, lambda _, __: 10 * PREFILL_S)
    assert share(served, 30, 90) < 0.02
    alone = serve(0.4 * 4 / 3, lambda _, __: PREFILL_S, workers=3)
    assert p90_s(served) < 1.05 * p90_s(alone)


def test_a_burst_does_not_go_to_a_slow_worker_that_nothing_was_heard_of():
    harness = PolicyHarness(PredictedLatencyPolicy(PredictedLatencyPolicy.Config()), 2)
    slow = harness.workers[0]
    for number in range(80):
        attempt = harness.select(make_request(f"{number:06d}" + " word" * 3000))
        harness.pool.advance(2.0 if attempt.worker is slow else 0.2)
        attempt.first_token()
        harness.pool.advance(1)
        attempt.complete()
    burst = [harness.select(make_request(f"burst {number}" + " word" * 3000)).worker for number in range(60)]
    assert burst.count(slow) < 20
