import random

import pytest

from router_policy_predicted_latency.linear_model import Fleet, Guess, KnownModel, LinearModel

GUESS = Guess((0.01, 1e-4, 1e-9), ((1, 1000, 1e6), (1, 10_000, 1e8)), noise_floor=0.02, count=2)
POINTS = ((1, 100, 1e4), (1, 3000, 2e7), (1, 20_000, 3e8), (1, 500, 5e7))


def model(fleet=None):
    return LinearModel(GUESS, Fleet() if fleet is None else fleet, noise_floor=0.02, keep=0.998)


def seconds(features, factor=1.0):
    return factor * (0.005 + 6e-5 * features[1] + 2e-9 * features[2])


def teach(learner, count, factor=1.0, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        features = rng.choice(POINTS)
        learner.learn(features, seconds(features, factor) * rng.uniform(0.9, 1.1))


@pytest.mark.parametrize("factor", [0.1, 1, 20])
def test_an_engine_of_any_speed_is_met_within_a_hundred_observations(factor):
    learner = model()
    teach(learner, 100, factor)
    for features in POINTS[1:3]:
        assert learner.predict(features) == pytest.approx(seconds(features, factor), rel=0.15, abs=0.01)


def test_no_coefficient_goes_negative():
    learner = model()
    for tokens in (10_000, 1000, 100):
        for _ in range(50):
            learner.learn((1, tokens, tokens * tokens), 1 / tokens)
    assert min(learner.coefficients) >= 0


def test_a_single_wild_observation_changes_little():
    learner = model()
    teach(learner, 100)
    before = learner.predict(POINTS[1])
    for _ in range(8):
        learner.learn(POINTS[3], 0.1)
    learner.learn(POINTS[1], 3600.0)
    assert learner.predict(POINTS[1]) < 1.5 * before


def test_a_newcomer_begins_with_what_its_peers_know_and_then_goes_its_own_way():
    fleet = Fleet()
    teach(model(fleet), 200, factor=10)
    newcomer = model(fleet)
    assert newcomer.predict(POINTS[2]) == pytest.approx(seconds(POINTS[2], 10), rel=0.3)
    teach(newcomer, 100, factor=1)
    assert newcomer.predict(POINTS[2]) == pytest.approx(seconds(POINTS[2]), rel=0.3)


def test_an_engine_that_became_slower_is_followed():
    learner = model()
    teach(learner, 500)
    teach(learner, 1500, factor=3)
    assert learner.predict(POINTS[2]) == pytest.approx(seconds(POINTS[2], 3), rel=0.2)


def test_given_coefficients_stay():
    known = KnownModel((0.0, 1.0, 2.0))
    known.learn((1, 1, 1), 100.0)
    assert known.predict((1, 1, 1)) == 3.0


def taught_beside_peers(factor):
    fleet = Fleet()
    peer, slow = model(fleet), model(fleet)
    teach(peer, 200)
    teach(slow, 50, factor)
    return peer, slow


def wait(learner, peer, seconds):
    for _ in range(int(seconds / 5)):
        teach(peer, 5)
        learner.age(5.0)


def test_a_slow_one_that_nothing_is_heard_of_is_believed_like_its_peers_after_a_while():
    peer, slow = taught_beside_peers(3)
    wait(slow, peer, 10)
    assert slow.predict(POINTS[1]) == pytest.approx(seconds(POINTS[1], 3), rel=0.2)
    wait(slow, peer, 60)
    assert slow.predict(POINTS[1]) == pytest.approx(peer.predict(POINTS[1]), rel=0.3)


def test_one_observation_brings_back_what_was_known_of_a_slow_one():
    peer, slow = taught_beside_peers(3)
    wait(slow, peer, 60)
    slow.learn(POINTS[1], seconds(POINTS[1], 3))
    assert slow.predict(POINTS[1]) == pytest.approx(seconds(POINTS[1], 3), rel=0.2)


def test_a_few_observations_show_that_a_slow_one_recovered():
    peer, slow = taught_beside_peers(3)
    for _ in range(3):
        wait(slow, peer, 60)
        slow.learn(POINTS[1], seconds(POINTS[1]))
    assert slow.predict(POINTS[1]) < 1.5 * seconds(POINTS[1])


def test_nothing_is_forgotten_while_the_whole_fleet_rests():
    _, slow = taught_beside_peers(3)
    slow.age(5.0)
    before = slow.coefficients
    for _ in range(1000):
        slow.age(5.0)
    assert slow.coefficients == before


def test_what_is_wildly_off_at_first_is_believed_when_it_comes_again():
    peer, slow = model(fleet := Fleet()), model(fleet)
    teach(peer, 200)
    before = slow.predict(POINTS[1])
    slow.learn(POINTS[1], 20 * before)
    assert slow.predict(POINTS[1]) == before
    for _ in range(10):
        slow.learn(POINTS[1], 20 * before)
    assert slow.predict(POINTS[1]) > 10 * before
