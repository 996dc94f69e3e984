import heapq
import itertools
from collections import Counter

import pytest

from router_core.testing.conformance import FakePool, PolicyConformance, make_request, make_worker, make_workers
from router_policy_power_of_two import PowerOfTwoPolicy


class TestConformance(PolicyConformance):
    policy_class = PowerOfTwoPolicy


class TestConformanceByTokens(PolicyConformance):
    policy_class = PowerOfTwoPolicy
    options = {"metric": "tokens"}


def started(metric="requests", seed=0):
    policy = PowerOfTwoPolicy(PowerOfTwoPolicy.Config(metric=metric))
    policy.on_start(FakePool(seed=seed))
    return policy


def test_less_loaded_of_two_is_taken():
    busy, idle = make_worker("busy", load=3), make_worker("idle", load=2)

    assert {started().select_single((busy, idle), make_request()).url for _ in range(50)} == {"idle"}


def test_two_distinct_workers_are_compared():
    workers = (*make_workers(3), make_worker("busy", load=1))
    policy = started()

    # Drawn against itself the busy one would win now and then.
    assert all(policy.select_single(workers, make_request()).url != "busy" for _ in range(2000))


def test_every_pair_is_equally_likely():
    workers, policy, counts = make_workers(4), started(), Counter()
    for _ in range(12_000):
        request = make_request()
        chosen = policy.select_single(workers, request)
        counts[chosen.url, request.reason_parts["other"]] += 1

    expected = 12_000 / 12
    assert len(counts) == 12
    # The 99.9 % point of chi-square with 11 degrees of freedom.
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 31.26


def test_equals_are_chosen_evenly():
    workers, policy = make_workers(2), started()
    counts = Counter(policy.select_single(workers, make_request()).url for _ in range(4000))

    assert counts[workers[0].url] == pytest.approx(2000, abs=200)


def test_choice_is_explained():
    request, tie = make_request(), make_request()
    started().select_single((make_worker("a", load=1), make_worker("b", load=4)), request)
    started().select_single(make_workers(2), tie)

    assert (request.reason, request.reason_parts) == ("less_loaded", {"load": 1, "other": "b", "other_load": 4})
    assert tie.reason == "tie"


def test_tokens_tell_one_long_prompt_from_short_ones():
    long = make_worker("long", load=1, pending_prompt_tokens=100_000)
    short = make_worker("short", load=3, decode_tokens=300)

    assert started("requests").select_single((long, short), make_request()).url == "long"
    assert started("tokens").select_single((long, short), make_request()).url == "short"


def test_telemetry_is_not_looked_at():
    from router_core.api import EngineTelemetry

    told = make_worker("told", load=1, engine=EngineTelemetry(0.0, running_requests=50))
    silent = make_worker("silent", load=2)

    assert started().select_single((told, silent), make_request()).url == "told"


@pytest.mark.parametrize("metric", ["requests", "tokens"])
@pytest.mark.parametrize("legs", ["regular", "pair"])
def test_slow_worker_keeps_a_small_share(policy_harness, metric, legs):
    """One of four workers takes eight times as long; in virtual time it gets far less than a quarter."""
    from router_core.testing.conformance import PAIR_POOL, REGULAR_POOL

    roles = REGULAR_POOL if legs == "regular" else PAIR_POOL
    workers = [worker for role in roles for worker in make_workers(4, role)]
    slow = {worker.url for worker in workers if worker.url.endswith("-0")}
    harness = policy_harness(started(metric), workers)
    running, number, counts = [], itertools.count(), Counter()
    for _ in range(2000):
        harness.pool.advance(0.1)
        while running and running[0][0] <= harness.pool.now():
            heapq.heappop(running)[2].complete()
        for attempt in harness.send(make_request(input_tokens=100)):
            counts[attempt.worker.url] += 1
            attempt.first_token()
            takes = 8.0 if attempt.worker.url in slow else 1.0
            heapq.heappush(running, (harness.pool.now() + takes * 0.25, next(number), attempt))

    for url in slow:
        assert counts[url] < 0.15 * 2000
    assert sum(counts.values()) == 2000 * len(roles)
