import random

import pytest

from router_policy_predicted_latency import returns as module
from router_policy_predicted_latency.linear_model import KnownModel
from router_policy_predicted_latency.returns import TICK_S, Returns
from router_policy_predicted_latency.worker_state import AWAY_TICKS, WorkerState


def make_states(count=2):
    model = KnownModel((0.0, 1e-4, 0.0))
    return [WorkerState(f"http://worker-{number}", model, model) for number in range(count)]


def look(returns, states, seconds=TICK_S):
    for _ in range(round(seconds / TICK_S)):
        returns.look(states)


def arrive(state, count):
    for _ in range(count):
        state.arrived()


def converse(returns, states, away_s, rounds=40):
    """Have conversations that always come back after the same time to the first worker."""
    for number in range(rounds):
        returns.left(number + 1, states[0])
        look(returns, states, away_s)
        assert returns.came(number + 1)


def test_conversations_are_expected_back_where_they_were_when_it_is_time():
    returns, states = Returns(), make_states()
    here, there = states
    converse(returns, states, away_s=10.0)
    for number in range(5):
        returns.left(1000 + number, here)
    look(returns, states, 1.0)
    assert here.return_rate < 0.1  # they have only just left
    look(returns, states, 8.5)
    assert here.return_rate > 1.2  # most of the five within two seconds
    assert there.return_rate == 0.0
    for number in range(5):
        returns.came(1000 + number)
    look(returns, states)
    assert here.return_rate == 0.0


def test_who_is_away_longer_than_anybody_was_is_hardly_expected():
    returns, states = Returns(), make_states()
    converse(returns, states, away_s=5.0)
    returns.left(1, states[0])
    look(returns, states, 40.0)
    assert states[0].return_rate < 0.1


def test_conversations_that_go_on_at_once_are_expected_of_those_that_are_in_flight():
    returns, states = Returns(), make_states()
    here, there = states
    for number in range(50):  # agents that think for nothing: ten seconds of work, and on
        here.flights = 1
        look(returns, states, 10.0)
        here.flights = 0
        returns.left(number + 1, here)
        assert returns.came(number + 1)
    here.flights = 20
    look(returns, states)
    assert here.return_rate == pytest.approx(20 / 10, rel=0.3)
    assert there.return_rate == 0.0


def test_a_request_that_goes_on_with_nothing_is_no_return():
    returns, states = Returns(), make_states()
    assert not returns.came(1)
    returns.left(1, states[0])
    look(returns, states, AWAY_TICKS * TICK_S)
    assert not returns.came(1)
    assert len(returns) == 0


def test_two_that_end_alike_are_one_that_left_last():
    returns, states = Returns(), make_states()
    returns.left(1, states[0])
    look(returns, states)
    returns.left(1, states[1])
    assert len(returns) == 1
    assert returns.came(1)
    assert not returns.came(1)
    assert [sum(state.away) for state in states] == [0, 0]


def test_the_rate_of_others_is_right_from_the_first_second_and_fades_in_minutes():
    returns, states = Returns(), make_states()
    here, there = states
    for _ in range(4):
        arrive(here, 5)
        look(returns, states)
    assert here.other_rate == pytest.approx(10.0)
    assert there.other_rate == 0.0
    there.flights = 1
    look(returns, states, 60.0)
    assert here.other_rate < 1.0


def test_a_pool_in_which_nothing_happens_forgets_no_rate():
    returns, states = Returns(), make_states()
    for _ in range(20):
        arrive(states[0], 3)
        look(returns, states)
    look(returns, states, 3600.0)
    assert states[0].other_rate == pytest.approx(6.0)


def test_a_burst_is_seen_while_it_lasts_and_not_for_longer():
    returns, states = Returns(), make_states()
    here, there = states
    here.flights = there.flights = 1
    for _ in range(600):
        arrive(here, 1)
        arrive(there, 1)
        look(returns, states)
    assert here.other_rate == pytest.approx(2.0)
    arrive(here, 40)
    assert here.other_rate > 15.0  # at once, not at the next look
    assert there.other_rate == pytest.approx(2.0)
    look(returns, states, 10.0)
    assert here.other_rate < 3.0


def test_two_or_three_at_once_are_no_burst():
    returns, states = Returns(), make_states()
    for _ in range(600):
        arrive(states[0], 1)
        look(returns, states)
    arrive(states[0], 3)
    assert states[0].other_rate == pytest.approx(2.0)


def test_a_newcomer_counts_as_if_it_had_had_its_share():
    returns, states = Returns(), make_states(3)
    for _ in range(600):
        for state in states[:2]:
            arrive(state, 2)
        look(returns, states[:2])
    returns.newcomer(states[2], states[:2])
    assert states[2].other_rate == pytest.approx(4.0)
    states[0].flights = 1
    look(returns, states, 5.0)
    assert 3.0 < states[2].other_rate < 4.0


def test_it_remembers_so_many_conversations_and_counts_each_once(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 50)
    returns, states = Returns(), make_states()
    chance = random.Random(7)
    for _ in range(5000):
        block, state = chance.randrange(1, 200), chance.choice(states)
        if chance.random() < 0.5:
            returns.left(block, state)
        else:
            returns.came(block)
        if chance.random() < 0.1:
            look(returns, states)
        assert len(returns) <= 50
        assert sum(sum(state.away) for state in states) <= len(returns)
        assert min(min(state.away) for state in states) >= 0
    look(returns, states, AWAY_TICKS * TICK_S)
    assert len(returns) == 0
    assert all(not any(state.away) for state in states)
