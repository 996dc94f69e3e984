"""A circuit opens for failures that matter, lets one request at a time through, and closes when those succeed."""

from __future__ import annotations

import pytest

from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import Circuit, Worker
from router_core.fleet.breaker import BreakerRules, CircuitBreakers
from router_core.fleet.ledger import Ledger
from router_core.fleet.pool import WorkerPool
from router_core.testing.builders import make_request

SUCCESS, ERROR, TIMEOUT = OutcomeStatus.SUCCESS, OutcomeStatus.ERROR, OutcomeStatus.TIMEOUT
BACKPRESSURE = OutcomeStatus.BACKPRESSURE
SAYS_NOTHING = (OutcomeStatus.CLIENT_ERROR, OutcomeStatus.BACKPRESSURE, OutcomeStatus.CANCELLED)


class Scheduler:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers = []

    def call_later(self, delay, callback):
        timer = Timer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def pass_time(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.is_cancelled:
                timer.callback()


class Timer:
    def __init__(self, at, callback):
        self.at, self.callback, self.is_cancelled = at, callback, False

    def cancel(self):
        self.is_cancelled = True


class Fleet:
    """Two workers; requests are placed on the first and end as the test says."""

    def __init__(self, **rules) -> None:
        self.scheduler = Scheduler()
        self.pool = WorkerPool("default", [Worker("http://a"), Worker("http://b")])
        self.worker = self.pool.workers[0]
        self.breakers = CircuitBreakers(
            self.pool, BreakerRules(**rules), scheduler=self.scheduler, now=lambda: self.scheduler.now
        )
        self._ledger = Ledger()

    def begin(self, *, has_begun=False):
        """Place a request; returns what ends it."""
        lease = self._ledger.reserve(self.worker, make_request(input_tokens=10))
        if has_begun:
            lease.first_token()
        attempt = object()
        placed_at = self.scheduler.now
        self.breakers.placed(self.worker, attempt)

        def end(status, *, is_lost=False):
            lease.release()
            self.breakers.ended(self.worker, attempt, status, lost_since=placed_at if is_lost else None)

        return end

    def serve(self, *statuses):
        for status in statuses:
            self.begin()(status)

    @property
    def is_candidate(self):
        return self.worker in self.pool.candidates()

    @property
    def circuit(self):
        return self.worker.circuit


def half_open(**rules):
    fleet = Fleet(failure_threshold=1, open_s=60, success_threshold=2, **rules)
    fleet.serve(ERROR)
    fleet.scheduler.pass_time(60)
    assert (fleet.circuit, fleet.is_candidate) == (Circuit.HALF_OPEN, True)
    return fleet


@pytest.mark.parametrize("failure", [ERROR, TIMEOUT])
def test_failures_in_a_row_open_the_circuit_at_the_threshold(failure):
    fleet = Fleet(failure_threshold=3)
    fleet.serve(failure, failure)
    assert fleet.circuit is Circuit.CLOSED
    fleet.serve(failure)
    assert fleet.circuit is Circuit.OPEN
    assert [worker.url for worker in fleet.pool.candidates()] == ["http://b"]
    assert fleet.breakers.transitions == {"http://a": {(Circuit.CLOSED, Circuit.OPEN): 1}}


@pytest.mark.parametrize("status", [OutcomeStatus.CLIENT_ERROR, OutcomeStatus.CANCELLED])
def test_what_is_not_the_workers_fault_never_opens_it(status):
    fleet = Fleet(failure_threshold=2)
    fleet.serve(*[status] * 100)
    assert fleet.circuit is Circuit.CLOSED


def test_a_worker_that_only_refuses_with_nothing_running_is_left_alone_for_a_little_while():
    fleet = Fleet(failure_threshold=3, open_s=60)
    fleet.serve(BACKPRESSURE, BACKPRESSURE)
    assert fleet.is_candidate
    fleet.serve(BACKPRESSURE)
    assert fleet.circuit is Circuit.OPEN
    fleet.scheduler.pass_time(5)
    assert fleet.circuit is Circuit.HALF_OPEN


def test_a_worker_that_refuses_because_it_is_full_stays_a_candidate():
    fleet = Fleet(failure_threshold=3)
    running = fleet.begin(has_begun=True)
    fleet.serve(*[BACKPRESSURE] * 20)
    assert fleet.is_candidate
    running(SUCCESS)


def test_a_worker_that_serves_now_and_then_between_refusals_stays_a_candidate():
    fleet = Fleet(failure_threshold=3)
    fleet.serve(*[BACKPRESSURE, BACKPRESSURE, SUCCESS] * 20)
    assert fleet.is_candidate


def test_failures_outside_the_window_do_not_add_up():
    fleet = Fleet(failure_threshold=3, window_s=10)
    for _ in range(20):
        fleet.serve(ERROR)
        fleet.scheduler.pass_time(6)
    assert fleet.circuit is Circuit.CLOSED
    fleet.serve(ERROR, ERROR)
    assert fleet.circuit is Circuit.OPEN


def test_few_failures_among_many_successes_do_not_open_it():
    fleet = Fleet(failure_threshold=3, failure_share=0.5)
    for _ in range(50):
        fleet.serve(SUCCESS, SUCCESS, SUCCESS, ERROR)
    assert fleet.circuit is Circuit.CLOSED
    fleet.serve(ERROR, SUCCESS, ERROR)  # the last three failures among the last five or fewer ends
    assert fleet.circuit is Circuit.OPEN


def test_a_share_of_one_asks_for_failures_in_a_row():
    fleet = Fleet(failure_threshold=3, failure_share=1.0)
    fleet.serve(ERROR, ERROR, SUCCESS, ERROR, ERROR)
    assert fleet.circuit is Circuit.CLOSED
    fleet.serve(ERROR)
    assert fleet.circuit is Circuit.OPEN


def test_requests_that_were_running_when_it_opened_change_nothing():
    fleet = Fleet(failure_threshold=1, success_threshold=1)
    late_failure, late_success, later_success = fleet.begin(), fleet.begin(), fleet.begin()
    fleet.serve(ERROR)
    late_failure(ERROR)
    late_success(SUCCESS)
    assert fleet.circuit is Circuit.OPEN
    assert fleet.breakers.transitions == {"http://a": {(Circuit.CLOSED, Circuit.OPEN): 1}}
    fleet.scheduler.pass_time(60)
    later_success(SUCCESS)
    assert fleet.circuit is Circuit.HALF_OPEN


def test_half_open_lets_one_request_at_a_time_through_and_closes_after_enough_successes():
    fleet = half_open()
    end = fleet.begin()
    assert (fleet.circuit, fleet.is_candidate) == (Circuit.PROBING, False)
    end(SUCCESS)
    assert (fleet.circuit, fleet.is_candidate) == (Circuit.HALF_OPEN, True)
    fleet.serve(SUCCESS)
    assert fleet.circuit is Circuit.CLOSED
    fleet.begin()
    assert fleet.is_candidate


def test_a_failure_while_half_open_opens_it_again_for_the_whole_time():
    fleet = half_open()
    fleet.serve(SUCCESS, ERROR)
    assert (fleet.circuit, fleet.is_candidate) == (Circuit.OPEN, False)
    fleet.scheduler.pass_time(59)
    assert not fleet.is_candidate
    fleet.scheduler.pass_time(1)
    assert fleet.is_candidate


@pytest.mark.parametrize("status", SAYS_NOTHING)
def test_a_request_let_through_that_says_nothing_gives_its_place_to_the_next(status):
    fleet = half_open()
    fleet.serve(status, status)
    assert (fleet.circuit, fleet.is_candidate) == (Circuit.HALF_OPEN, True)
    fleet.serve(SUCCESS, SUCCESS)
    assert fleet.circuit is Circuit.CLOSED


def test_a_worker_that_was_dead_and_is_well_again_is_as_one_that_never_failed():
    fleet = Fleet(failure_threshold=1, success_threshold=1)
    fleet.serve(ERROR)
    fleet.breakers.recovered(fleet.worker)
    assert fleet.circuit is Circuit.CLOSED
    fleet.scheduler.pass_time(60)  # the timer of the open circuit is of no consequence any more
    assert fleet.circuit is Circuit.CLOSED
    assert fleet.breakers.transitions == {"http://a": {("closed", "open"): 1, ("open", "closed"): 1}}


@pytest.mark.parametrize("is_probing", [False, True])
def test_one_that_was_dead_and_is_well_again_need_not_be_tried_with_care(is_probing):
    fleet = half_open()
    end = fleet.begin() if is_probing else None
    fleet.breakers.recovered(fleet.worker)
    assert (fleet.circuit, fleet.breakers.half_open) == (Circuit.CLOSED, {})
    if end is not None:
        end(SUCCESS)
    assert fleet.circuit is Circuit.CLOSED


def test_a_crash_is_one_failure_however_many_requests_it_ends():
    fleet = Fleet(failure_threshold=3)
    for _ in range(2):
        fleet.scheduler.pass_time(1)
        ends = [fleet.begin() for _ in range(20)]
        for end in ends:
            end(ERROR, is_lost=True)
    assert fleet.circuit is Circuit.CLOSED
    fleet.scheduler.pass_time(1)
    fleet.begin()(ERROR, is_lost=True)
    assert fleet.circuit is Circuit.OPEN


def test_a_connection_lost_again_and_again_is_a_failure_each_time():
    fleet = Fleet(failure_threshold=3)
    for _ in range(3):
        fleet.scheduler.pass_time(0.001)
        fleet.begin()(ERROR, is_lost=True)
    assert fleet.circuit is Circuit.OPEN


def test_connections_that_are_lost_one_by_one_are_no_crash():
    fleet = Fleet(failure_threshold=3)
    for end in [fleet.begin() for _ in range(3)]:
        fleet.scheduler.pass_time(0.6)
        end(ERROR, is_lost=True)
    assert fleet.circuit is Circuit.OPEN


def test_recovery_of_a_worker_with_a_closed_circuit_wipes_out_its_failures():
    fleet = Fleet(failure_threshold=2)
    fleet.serve(ERROR)
    fleet.breakers.recovered(fleet.worker)
    fleet.serve(ERROR)
    assert fleet.circuit is Circuit.CLOSED


def test_a_worker_that_leaves_while_open_comes_back_closed():
    fleet = Fleet(failure_threshold=1)
    end = fleet.begin()
    fleet.serve(ERROR)
    fleet.pool.remove("http://a")
    returned = fleet.pool.add(Worker("http://a"))
    assert returned is fleet.worker  # its load is still counted
    assert (fleet.circuit, fleet.is_candidate) == (Circuit.CLOSED, True)
    fleet.scheduler.pass_time(60)
    assert fleet.circuit is Circuit.CLOSED
    end(SUCCESS)


def test_failures_of_a_worker_that_has_left_are_not_kept():
    fleet = Fleet(failure_threshold=1)
    end = fleet.begin()
    fleet.pool.remove("http://a")
    end(ERROR)
    assert fleet.circuit is Circuit.CLOSED
    assert fleet.scheduler.timers == []


def test_switched_off_it_never_opens():
    fleet = Fleet(is_on=False, failure_threshold=1)
    fleet.serve(*[ERROR] * 100)
    assert fleet.is_candidate


def test_how_long_to_wait_is_told_by_the_circuit_that_half_opens_first():
    fleet = Fleet(failure_threshold=1, open_s=60)
    workers = fleet.pool.workers
    assert fleet.breakers.retry_after_s(workers) is None
    fleet.serve(ERROR)
    fleet.scheduler.pass_time(20)
    assert fleet.breakers.retry_after_s(workers) == 40
    assert fleet.breakers.retry_after_s(workers[1:]) is None
    fleet.scheduler.pass_time(40)
    fleet.begin()
    assert fleet.breakers.retry_after_s(workers) == 1
