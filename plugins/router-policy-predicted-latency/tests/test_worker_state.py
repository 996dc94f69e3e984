import pytest

from router_policy_predicted_latency.flight import Flight
from router_policy_predicted_latency.linear_model import KnownModel
from router_policy_predicted_latency.worker_state import WorkerState


def make_state():
    return WorkerState("http://worker", KnownModel((0.0, 1e-4, 0.0)), KnownModel((0.0, 2e-5, 6e-8)))


def queue(state, count, prefill_s, now=0.0):
    flights = []
    for _ in range(count):
        flight = Flight(state, 1000, now)
        flight.prefill_s = prefill_s
        state.enqueue(flight, now)
        flights.append(flight)
    return flights


def test_a_queue_is_worked_off_as_time_passes():
    state = make_state()
    queue(state, 3, 1.0)
    assert [state.backlog_s(now) for now in (0.0, 0.5, 1.0, 1.5)] == [3.0, 2.5, 2.0, 2.0]


def test_a_first_token_ends_its_own_part_of_the_queue():
    state = make_state()
    first, second, _ = queue(state, 3, 1.0)
    state.first_token(first, 0.9)
    assert state.backlog_s(0.9) == pytest.approx(2.0)
    state.first_token(second, 1.0)
    assert state.backlog_s(1.0) == pytest.approx(1.0)


def test_first_tokens_may_come_in_any_order():
    state = make_state()
    first, second, third = queue(state, 3, 1.0)
    for flight, now in ((second, 1.0), (third, 2.0), (first, 3.0)):
        state.first_token(flight, now)
    assert state.backlog_s(3.0) == 0.0
    assert (state.decoding, state.context_tokens) == (3, 3000)


def test_what_prefills_take_beyond_their_prediction_counts_for_all_that_wait():
    state = make_state()
    flights = queue(state, 60, 0.03)
    for number, flight in enumerate(flights[:50]):  # memory for one more request every two seconds
        state.first_token(flight, 2.0 * (number + 1))
    assert state.backlog_s(100.0) == pytest.approx(20.0, rel=0.2)


def test_an_overdue_prefill_counts_the_longer_the_longer_it_is():
    state = make_state()
    queue(state, 1, 1.0)
    assert state.backlog_s(60.0) > state.backlog_s(30.0) > 10.0


def test_failures_in_a_row_are_held_against_a_worker_ever_longer_until_it_serves():
    state = make_state()
    waits = []
    for _ in range(8):
        state.failed(100.0)
        waits.append(state.backlog_s(100.0))
    assert waits == sorted(waits)
    assert waits[0] == 1.0
    assert waits[-1] == 30.0
    assert state.backlog_s(131.0) == 0.0
    state.served()
    assert state.backlog_s(100.0) == 0.0
