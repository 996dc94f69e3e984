"""Another attempt is granted when it may help, and never without bounds."""

from __future__ import annotations

from random import Random

import pytest

from router_core.relay.answer_heads import AnswerHead
from router_core.relay.parties import Ending
from router_core.traffic.failure import Failure, retry_after_s
from router_core.traffic.retry import Retries, RetryRules, Trials

NOT_CONNECTED, LOST, SILENT, GONE, FULL, STATUS = Failure


class Clock:
    now = 0.0

    def time(self):
        return self.now


class Request:
    deadline = 1800.0


class Asked:
    """A request whose attempts fail, and who grants others."""

    def __init__(self, *, in_flight=0, deadline=1800.0, **rules):
        self.clock = Clock()
        self.in_flight = in_flight
        self.retries = Retries(
            RetryRules(**{"jitter": 0.0} | rules),
            in_flight=lambda: self.in_flight,
            scheduler=self.clock,
            random=Random(1),
        )
        self.request = Request()
        self.request.deadline = deadline
        self.trials = Trials(0.0)

    def ask(self, failure=STATUS, *, trials=None, is_anyone_left=True, wish_s=0.0):
        trials = self.trials if trials is None else trials
        return self.retries.grant(trials, failure, self.request, is_anyone_left=is_anyone_left, wish_s=wish_s)


def test_a_failed_connection_costs_nothing_while_another_worker_is_left():
    asked = Asked(max_attempts=1, budget_floor=0, budget_share=0)
    assert [asked.ask(NOT_CONNECTED) for _ in range(20)] == [0.0] * 20
    assert asked.ask(NOT_CONNECTED, is_anyone_left=False) is None


def test_when_nobody_could_be_reached_nobody_is_asked_again():
    asked = Asked()
    assert [asked.ask(NOT_CONNECTED), asked.ask(NOT_CONNECTED, is_anyone_left=False)] == [0.0, None]
    assert asked.retries.refused == {"attempts": 0, "deadline": 0, "retry_after": 0, "budget": 0}


def test_a_worker_that_was_full_is_asked_again_after_another_refused_its_connection():
    asked = Asked(initial_backoff_s=1, multiplier=1)
    assert [asked.ask(FULL), asked.ask(NOT_CONNECTED, is_anyone_left=False)] == [0.0, 1]


def test_attempts_are_bounded_and_pauses_grow_to_their_limit():
    asked = Asked(max_attempts=5, initial_backoff_s=1, multiplier=3, max_backoff_s=10)
    assert [asked.ask() for _ in range(6)] == [1, 3, 9, 10, None, None]


def test_jitter_spreads_the_pauses_around_their_length():
    asked = Asked(jitter=0.2, initial_backoff_s=1, budget_floor=1000)
    pauses = [asked.ask(trials=Trials(0.0)) for _ in range(200)]
    assert 0.8 <= min(pauses) < 0.85
    assert 1.15 < max(pauses) <= 1.2


def test_what_a_worker_that_is_gone_leaves_behind_is_bounded_by_attempts_and_not_by_the_budget():
    """All requests in flight on a worker that crashes are to be saved; one that kills its workers is to end."""
    asked = Asked(max_attempts=3, budget_floor=0, budget_share=0)
    assert [asked.ask(GONE, trials=Trials(0.0)) for _ in range(20)] == [0.0] * 20
    assert [asked.ask(GONE) for _ in range(3)] == [0.0, 0.0, None]
    assert asked.retries.refused == {"attempts": 1, "deadline": 0, "retry_after": 0, "budget": 0}


@pytest.mark.parametrize("failure", [LOST, SILENT, GONE, FULL])
def test_where_another_worker_is_left_a_pause_is_of_no_use(failure):
    asked = Asked(initial_backoff_s=1)
    assert asked.ask(failure, wish_s=20) == 0.0  # it was the other worker that wished to be left alone
    assert asked.ask(failure, is_anyone_left=False) == 1.5


def test_when_all_were_tried_retry_after_is_waited_for():
    asked = Asked(initial_backoff_s=1)
    assert asked.ask(FULL, is_anyone_left=False, wish_s=20) == 20


def test_a_worker_that_wishes_for_longer_than_the_longest_pause_is_not_asked_again():
    asked = Asked(max_backoff_s=30)
    assert asked.ask(FULL, is_anyone_left=False, wish_s=30) == 30
    assert asked.ask(FULL, trials=Trials(0.0), is_anyone_left=False, wish_s=31) is None
    assert asked.retries.refused["retry_after"] == 1
    assert asked.ask(FULL, trials=Trials(0.0), wish_s=31) == 0.0  # while another is left its wish is respected so


def test_requests_that_were_told_the_same_time_do_not_all_come_at_once():
    asked = Asked(jitter=0.2)
    pauses = [asked.ask(FULL, trials=Trials(0.0), is_anyone_left=False, wish_s=10) for _ in range(100)]
    assert 10 <= min(pauses) < 10.2
    assert 11.8 < max(pauses) <= 12


def test_who_waits_as_a_worker_wishes_holds_nothing_of_the_budget_and_asks_when_the_time_has_come():
    asked = Asked(budget_share=0, budget_floor=2)
    waiting = [Trials(0.0) for _ in range(5)]
    assert [asked.ask(FULL, trials=each, is_anyone_left=False, wish_s=10) for each in waiting] == [10] * 5
    assert asked.retries.granted["full"] == 0
    assert asked.ask(FULL) == 0.0  # another worker is free for this one
    assert [asked.retries.pause_over(each) for each in waiting] == [True, False, False, False, False]
    assert (asked.retries.granted["full"], asked.retries.refused["budget"]) == (2, 4)
    for each in waiting[1:]:
        asked.retries.over(each, Ending.DECLINED, None)
    assert not any(asked.retries.results.values())  # they had no further attempt


def test_a_pause_of_the_routers_own_is_within_the_budget():
    """Else answers that fail quickly would be asked for without bounds."""
    asked = Asked(budget_share=0, budget_floor=1, initial_backoff_s=1)
    assert [asked.ask(trials=Trials(0.0)) for _ in range(3)] == [1, None, None]


def test_a_request_whose_answer_has_begun_holds_nothing_of_the_budget():
    asked = Asked(budget_share=0, budget_floor=1)
    assert [asked.ask() is not None, asked.ask(trials=Trials(0.0)) is not None] == [True, False]
    asked.retries.answered(asked.trials)
    assert asked.ask(trials=Trials(0.0)) is not None
    asked.retries.over(asked.trials, Ending.COMPLETE, 200)
    assert asked.retries.results["served"] == 1


def test_what_a_worker_dropped_is_not_within_the_budget_while_another_is_left():
    asked = Asked(max_attempts=3, budget_floor=0, budget_share=0)
    assert [asked.ask(LOST, trials=Trials(0.0)) for _ in range(20)] == [0.0] * 20
    assert asked.ask(LOST, trials=Trials(0.0), is_anyone_left=False) is None
    assert asked.ask(SILENT, trials=Trials(0.0)) is None


@pytest.mark.parametrize("limits", [{"deadline": 20.0}, {"deadline_s": 19.0}])
def test_an_attempt_that_would_begin_behind_the_deadline_is_not_made(limits):
    asked = Asked(**limits)
    assert asked.ask(FULL, is_anyone_left=False, wish_s=20) is None
    asked.clock.now = 19.99
    assert asked.ask() is None


def test_only_a_share_of_what_is_in_flight_may_be_on_a_later_attempt():
    asked = Asked(in_flight=100, budget_share=0.2, budget_floor=3)
    others = [Trials(0.0) for _ in range(40)]
    granted = [other for other in others if asked.ask(trials=other) is not None]
    assert 20 <= len(granted) <= 25
    assert asked.retries.refused["budget"] == 40 - len(granted)
    for other in granted:
        asked.retries.over(other, Ending.COMPLETE, 200)
    assert asked.ask() is not None


@pytest.mark.parametrize(
    ("ending", "status", "result"),
    [
        (Ending.COMPLETE, 200, "served"),
        (Ending.COMPLETE, 400, "served"),
        (Ending.COMPLETE, 500, "failed"),
        (Ending.CONNECTION_LOST, None, "failed"),
        (Ending.STALLED, 200, "failed"),
        (Ending.CLIENT_GONE, 200, "cancelled"),
    ],
)
def test_what_came_of_a_request_is_counted_once_and_only_if_it_was_tried_again(ending, status, result):
    asked = Asked()
    asked.retries.over(asked.trials, ending, status)
    assert not any(asked.retries.results.values())
    asked.ask(NOT_CONNECTED)
    asked.ask(LOST)
    for _ in range(2):
        asked.retries.over(asked.trials, ending, status)
    assert asked.retries.results == {"served": 0, "failed": 0, "cancelled": 0} | {result: 1}
    assert asked.retries.granted == {"not_connected": 1, "lost": 1, "silent": 0, "gone": 0, "full": 0, "status": 0}


def test_a_few_may_be_however_few_are_in_flight():
    asked = Asked(in_flight=0, budget_share=0.2, budget_floor=3)
    assert sum(asked.ask(trials=Trials(0.0)) is not None for _ in range(10)) == 3


def test_a_request_that_is_on_a_later_attempt_is_counted_once():
    asked = Asked(max_attempts=4, budget_share=0, budget_floor=1)
    assert [asked.ask() is not None for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"Retry-After: 7\r\n", 7),
        (b"retry-after: 0\r\n", 0),
        (b"", 0),
        (b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 0),
        (b"Retry-After: -5\r\n", 0),
        (b"Retry-After: 1.5\r\n", 0),
        (b"Retry-After: 99999999999999999999\r\n", 0),
    ],
)
def test_retry_after_is_read_if_it_is_seconds(line, seconds):
    head = AnswerHead(b"HTTP/1.1 503 Busy\r\n%bContent-Length: 0\r\n\r\n" % line)
    assert retry_after_s(head) == seconds
