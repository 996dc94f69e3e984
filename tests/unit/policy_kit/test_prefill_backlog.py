import pytest

from router_core.api import Leg, OutcomeStatus, PrefillBacklog, PrefixIndex, RequestOutcome
from router_core.policy_kit import prefill_backlog
from router_core.testing.builders import make_request, make_worker

BLOCK = "All work and no play makes Jack. " * 64
A, B = make_worker("a"), make_worker("b")


@pytest.fixture
def backlog():
    return PrefillBacklog(PrefixIndex(1_000_000))


def request(text=BLOCK, **facts):
    return make_request(text, **facts)


def outcome(status=OutcomeStatus.SUCCESS, **facts):
    return RequestOutcome(status, **facts)


def figures(backlog, worker=A):
    return backlog.pending_tokens(worker.url), backlog.index.pinned_tokens(worker.url), backlog.index.tokens(worker.url)


def test_prompt_is_pending_until_its_first_token_and_pinned_until_its_end(backlog):
    asked = request()
    backlog.place(A, asked)
    assert figures(backlog) == (528, 512, 512)
    backlog.first_token(A, asked)
    assert figures(backlog) == (0, 512, 512)
    backlog.complete(A, asked, outcome())
    assert figures(backlog) == (0, 0, 512)


def test_a_decode_leg_that_is_placed_leaves_nothing_behind(backlog):
    asked = request(leg=Leg.DECODE)
    backlog.place(A, asked)
    assert figures(backlog) == (0, 0, 0)


def test_only_what_the_worker_has_not_is_pending(backlog):
    first = request()
    backlog.place(A, first)
    backlog.place(A, request())

    assert backlog.pending_tokens("a") == 528 + 16
    assert backlog.match((A, B), request()) == [512, 0]


def test_match_never_exceeds_the_prompt(backlog):
    backlog.place(A, request())
    assert backlog.match((A,), request(input_tokens=100)) == [100]


@pytest.mark.parametrize("status", OutcomeStatus)
@pytest.mark.parametrize("has_token", [False, True])
def test_every_outcome_releases_once(backlog, status, has_token):
    asked = request()
    backlog.place(A, asked)
    if has_token:
        backlog.first_token(A, asked)
    for _ in range(2):
        backlog.complete(A, asked, outcome(status, ttft_s=0.1 if has_token else None))
        backlog.first_token(A, asked)

    cut_short = status in (OutcomeStatus.CANCELLED, OutcomeStatus.TIMEOUT)
    was_computed = status is OutcomeStatus.SUCCESS or (cut_short and has_token)
    assert figures(backlog) == (0, 0, 512 if was_computed else 0)


def test_decode_leg_ends_nothing_of_its_prefill(backlog):
    asked = request()
    backlog.place(A, asked)
    backlog.first_token(B, asked)
    backlog.complete(B, asked, outcome(leg=Leg.DECODE))
    assert figures(backlog) == (528, 512, 512)


def test_attempt_that_ran_elsewhere_teaches_nothing(backlog):
    asked = request()
    backlog.place(A, asked)
    backlog.complete(B, asked, outcome())  # somebody overruled the policy
    assert figures(backlog) == (0, 0, 0)
    assert figures(backlog, B) == (0, 0, 0)


def test_requests_that_were_never_sent_are_given_up(backlog, monkeypatch):
    monkeypatch.setattr(prefill_backlog, "_MAX_OPEN", 2)
    for number in range(5):
        backlog.place(A, request(f"{number}" * 256, input_tokens=100))
    assert backlog.pending_tokens("a") == 2 * 100


def test_worker_that_left_is_followed_to_the_end_of_its_requests(backlog):
    asked = request()
    backlog.place(A, asked)
    backlog.remove_worker(A)
    backlog.complete(A, asked, outcome())
    assert backlog.pending_tokens("a") == 0
    assert backlog.match((A,), request()) == [0]
