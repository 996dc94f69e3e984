import pytest

from router_policy_predicted_latency.regrets import Regrets


def regret(regrets, times, spared_s=1.0):
    for now in times:
        regrets.add(7, regrets.seconds(7, now), spared_s, now)


def test_what_is_regretted_again_and_again_adds_up():
    regrets = Regrets()
    regret(regrets, [0.2 * number for number in range(4)])
    assert regrets.seconds(7, 0.6) == pytest.approx(3.0, rel=0.1)
    assert regrets.seconds(8, 0.6) == 0.0


def test_a_burst_counts_for_the_time_it_takes():
    regrets = Regrets()
    regret(regrets, [1.0] * 100)
    assert regrets.seconds(7, 1.0) == 0.0
    regret(regrets, [1.05] * 100)
    assert regrets.seconds(7, 1.05) == pytest.approx(0.5)


def test_regrets_fade():
    regrets = Regrets()
    regret(regrets, [0.0, 1.0])
    assert regrets.seconds(7, 6.0) == pytest.approx(0.37, rel=0.01)


def test_what_is_spent_is_gone():
    regrets = Regrets()
    regret(regrets, [0.0, 1.0])
    regrets.spend(7, regrets.seconds(7, 1.0), 0.75, 1.0)
    assert regrets.seconds(7, 1.0) == pytest.approx(0.25)


def test_old_beginnings_make_room():
    regrets = Regrets()
    for beginning in range(100_000):
        regrets.add(beginning, 0.0, 1.0, 0.01 * beginning)
    assert len(regrets) < 10_000
