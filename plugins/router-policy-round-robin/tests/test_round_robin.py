from collections import Counter

import pytest

from router_core.api import Leg
from router_core.testing.conformance import PAIR_POOL, PolicyConformance, make_request, make_worker, make_workers
from router_policy_round_robin import RoundRobinPolicy


class TestConformance(PolicyConformance):
    policy_class = RoundRobinPolicy


@pytest.fixture
def rotate(policy_harness):
    """Return a harness over workers a, b, c, ... and a function that serves requests and spells who got them."""

    def start(names):
        harness = policy_harness(RoundRobinPolicy(RoundRobinPolicy.Config()), [make_worker(name) for name in names])
        return harness, lambda count: "".join(harness.serve(make_request())[0].url for _ in range(count))

    return start


def worker_named(harness, name):
    return next(worker for worker in harness.workers if worker.url == name)


def test_workers_take_turns_and_wrap(rotate):
    _, serve = rotate("abc")

    assert serve(7) == "abcabca"


def test_turns_do_not_depend_on_load(rotate):
    harness, serve = rotate("abc")
    harness.select(make_request())

    assert serve(3) == "bca"


def test_nobody_is_skipped_when_a_worker_leaves(rotate):
    harness, serve = rotate("abcd")
    assert serve(2) == "ab"

    harness.remove_worker(worker_named(harness, "a"))

    assert serve(6) == "cdbcdb"


def test_nobody_is_skipped_when_the_next_one_leaves(rotate):
    harness, serve = rotate("abcd")
    assert serve(2) == "ab"

    harness.remove_worker(worker_named(harness, "c"))

    assert serve(6) == "dabdab"


def test_newcomer_gets_one_turn_and_no_burst(rotate):
    harness, serve = rotate("abc")
    assert serve(4) == "abca"

    harness.add_worker(make_worker("n"))

    assert serve(8) == "nbcanbca"


def test_recovered_worker_gets_one_turn_and_no_burst(rotate):
    harness, serve = rotate("abc")
    harness.set_health(worker_named(harness, "b"), healthy=False)
    assert serve(6) == "acacac"

    harness.set_health(worker_named(harness, "b"), healthy=True)

    assert serve(6) == "bacbac"


def test_flapping_worker_gets_no_more_than_its_share(rotate):
    harness, serve = rotate("abc")
    counts = Counter()
    for step in range(300):
        harness.set_health(worker_named(harness, "b"), healthy=step % 2 == 0)
        counts[serve(1)] += 1

    assert counts["b"] <= 100
    assert abs(counts["a"] - counts["c"]) <= 1


def test_turns_stay_even_through_churn_of_health(rotate):
    harness, serve = rotate("abcde")
    for step in range(100):
        flaky = worker_named(harness, "abcde"[step % 5])
        harness.set_health(flaky, healthy=False)
        serve(3)
        harness.set_health(flaky, healthy=True)
        serve(3)

    counts = [worker.requests_processed for worker in harness.workers]
    assert max(counts) - min(counts) <= 2


def test_each_leg_has_a_rotation_of_its_own(policy_harness):
    workers = [worker for role, count in zip(PAIR_POOL, (2, 3), strict=True) for worker in make_workers(count, role)]
    harness = policy_harness(RoundRobinPolicy(RoundRobinPolicy.Config()), workers)

    pairs = [harness.serve(make_request()) for _ in range(6)]

    assert "".join(prefill.url[-1] for prefill, _ in pairs) == "010101"
    assert "".join(decode.url[-1] for _, decode in pairs) == "012012"


def test_turns_of_one_leg_are_not_counted_in_another():
    policy, workers = RoundRobinPolicy(RoundRobinPolicy.Config()), make_workers(3)

    picks = [policy.select_single(workers, make_request(leg=leg)).url[-1] for leg in (Leg.PREFILL, Leg.DECODE) * 3]

    assert "".join(picks) == "001122"


def test_address_that_left_for_good_counts_as_new(rotate):
    harness, serve = rotate("abc")
    assert serve(2) == "ab"

    harness.remove_worker(worker_named(harness, "b"))
    harness.add_worker(make_worker("b"))

    assert serve(6) == "cbacba"
