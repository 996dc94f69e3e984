from collections import Counter

import pytest

from router_core.testing.conformance import PolicyConformance, make_request, make_worker, make_workers
from router_policy_consistent_hash import ManualPolicy
from router_policy_consistent_hash.assignments import Assignments

HEADER = "x-smg-routing-key"


class TestConformance(PolicyConformance):
    policy_class = ManualPolicy
    memory_options = {"max_keys": 1000}
    affinity = "session"


class TestConformanceByGroup(PolicyConformance):
    policy_class = ManualPolicy
    options = {"assignment_mode": "min_group", "keys": ["user"]}
    memory_options = {"max_keys": 1000}
    affinity = "user"
    exempt = {"check_fresh_worker_is_not_flooded": "new keys go to who has the fewest, so a newcomer catches up"}


@pytest.fixture
def pool(policy_harness):
    """Return a harness of workers a, b, c, and a function that serves a key and says who got it."""

    def start(**options):
        workers = [make_worker(name) for name in "abc"]
        harness = policy_harness(ManualPolicy(ManualPolicy.Config(**options)), workers)
        return harness, lambda key: harness.serve(make_request(headers={HEADER: key} if key else {}))[0].url

    return start


def named(harness, name):
    return next(worker for worker in harness.workers if worker.url == name)


def test_key_stays_with_its_worker_however_busy(pool):
    harness, serve = pool()
    home = serve("k")
    for _ in range(50):
        harness.send(make_request(headers={HEADER: "k"}))

    assert named(harness, home).load == 50


def test_key_comes_home_when_its_worker_has_recovered(pool):
    harness, serve = pool()
    home = serve("k")
    harness.set_health(named(harness, home), healthy=False)
    stand_in = serve("k")
    assert stand_in != home
    assert {serve("k") for _ in range(10)} == {stand_in}

    harness.set_health(named(harness, home), healthy=True)

    assert serve("k") == home


def test_third_worker_takes_the_place_of_the_first(pool):
    harness, serve = pool()
    first = serve("k")
    harness.set_health(named(harness, first), healthy=False)
    second = serve("k")
    harness.set_health(named(harness, second), healthy=False)
    third = serve("k")
    for name in (first, second):
        harness.set_health(named(harness, name), healthy=True)

    assert sorted((first, second, third)) == ["a", "b", "c"]
    assert serve("k") == second


def test_worker_that_left_for_good_gets_its_keys_not_back(pool):
    harness, serve = pool(assignment_mode="min_group")
    homes = {key: serve(key) for key in "uvwxyz"}
    harness.remove_worker(named(harness, "a"))
    moved = {key: serve(key) for key in homes if homes[key] == "a"}
    harness.add_worker(make_worker("a"))

    assert {key: serve(key) for key in moved} == moved


@pytest.mark.parametrize("mode", ["random", "min_load", "min_group"])
def test_request_without_the_header_is_spread_and_not_remembered(pool, mode):
    _, serve = pool(assignment_mode=mode)
    counts = Counter(serve(None) for _ in range(300))

    assert all(counts[name] > 60 for name in "abc")


def test_min_load_gives_a_new_key_to_the_idlest(pool):
    harness, serve = pool(assignment_mode="min_load")
    for _ in range(2):
        harness.send(make_request())

    assert serve("k") == "c"


def test_min_group_gives_everybody_as_many_keys(pool):
    _, serve = pool(assignment_mode="min_group")
    assert Counter(serve(str(n)) for n in range(30)) == {"a": 10, "b": 10, "c": 10}


def test_key_not_used_for_long_is_forgotten(pool):
    harness, serve = pool(assignment_mode="min_load", max_idle_secs=60)
    home = serve("k")
    harness.pool.advance(60)
    assert serve("k") == home
    harness.pool.advance(61)

    assert serve("k") != home  # it is another's turn


def test_choice_is_explained(pool):
    harness, _ = pool()
    reasons = []
    for headers in ({}, {HEADER: "k"}, {HEADER: "k"}):
        request = make_request(headers=headers)
        harness.serve(request)
        reasons.append(request.reason)

    assert reasons == ["no_key", "assigned", "sticky"]


def test_legs_keep_their_own_keys(policy_harness):
    from router_core.testing.conformance import PAIR_POOL

    workers = [worker for role in PAIR_POOL for worker in make_workers(3, role)]
    harness = policy_harness(ManualPolicy(ManualPolicy.Config()), workers)
    pairs = {tuple(each.url for each in harness.serve(make_request(headers={HEADER: "k"}))) for _ in range(10)}

    assert len(pairs) == 1


def test_remembered_keys_are_bounded_and_the_longest_unused_goes_first():
    known = Assignments(max_idle_s=100, max_keys=3)
    for number in range(3):
        known.assign(number, "a", float(number))
    known.find(0, "a", 3.0)
    known.assign(3, "b", 4.0)

    assert len(known) == 3
    assert [known.find(number, "ab", 5.0) for number in range(4)] == ["a", None, "a", "b"]
    assert (known.keys_of("a"), known.keys_of("b"), known.keys_of("c")) == (2, 1, 0)
