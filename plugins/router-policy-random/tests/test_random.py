from collections import Counter
from itertools import pairwise

import pytest

from router_core.testing.conformance import FakePool, PolicyConformance, make_workers
from router_policy_random import RandomPolicy


class TestConformance(PolicyConformance):
    policy_class = RandomPolicy


class TestConformanceWithSeed(PolicyConformance):
    policy_class = RandomPolicy
    options = {"seed": 5}


@pytest.fixture
def policy():
    return RandomPolicy(RandomPolicy.Config(seed=1))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_every_worker_has_the_same_chance(policy, count):
    workers, draws = make_workers(count), 20_000
    counts = Counter(policy.select_single(workers).url for _ in range(draws))

    expected = draws / count
    chi_square = sum((counts[worker.url] - expected) ** 2 / expected for worker in workers)
    # The 99.9 % points of chi-square with 1, 2 and 7 degrees of freedom.
    assert chi_square < {2: 10.83, 3: 13.82, 8: 24.32}[count]


def test_successive_picks_are_independent(policy):
    workers = make_workers(2)
    picks = [policy.select_single(workers).url for _ in range(20_000)]
    repeats = sum(one == two for one, two in pairwise(picks))

    assert repeats == pytest.approx(10_000, abs=300)


def test_load_makes_no_difference():
    busy, idle = (make_workers(2, load=1000)[0], make_workers(2)[1])
    policy = RandomPolicy(RandomPolicy.Config(seed=1))
    counts = Counter(policy.select_single((busy, idle)).url for _ in range(2000))

    assert counts[busy.url] == pytest.approx(1000, abs=150)


def test_own_seed_outranks_the_pools():
    def picks(seed, pool_seed):
        policy = RandomPolicy(RandomPolicy.Config(seed=seed))
        policy.on_start(FakePool(seed=pool_seed))
        return [policy.select_single(make_workers(4)).url for _ in range(50)]

    assert picks(1, 1) == picks(1, 2)
    assert picks(None, 1) == picks(None, 1)
    assert picks(None, 1) != picks(None, 2)
