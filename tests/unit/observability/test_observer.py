from __future__ import annotations

from collections.abc import Callable

from router_core.api import Leg, LiteralPrompt, OutcomeStatus, RequestOutcome, RoutingRequest, Worker
from router_core.observability.observer import MetricsObserver


class CountingPool:
    """The part of a pool context the observer may use; keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, dict[str, str]]] = []

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        return lambda value: self.told.append((name, value, labels))

    histogram = counter


def told_about(outcome: RequestOutcome, reason: str | None = None) -> dict[str, tuple[float, dict[str, str]]]:
    pool = CountingPool()
    observer = MetricsObserver(MetricsObserver.Config())
    observer.on_start(pool)  # type: ignore[arg-type]
    request = RoutingRequest("r1", LiteralPrompt("hello"))
    if reason:
        request.explain(reason, matched=3)
    observer.on_request_complete(Worker("http://a:1"), request, outcome)
    assert len({name for name, _, _ in pool.told}) == len(pool.told), "each figure once"
    return {name: (value, labels) for name, value, labels in pool.told}


def test_an_attempt_that_got_no_answer_leaves_no_times_or_tokens() -> None:
    told = told_about(RequestOutcome(OutcomeStatus.ERROR, duration_s=0.25))
    assert told == {
        "requests_total": (1, {"worker": "http://a:1", "status": "error", "leg": "single"}),
        "policy_decisions_total": (1, {"worker": "http://a:1", "reason": "unexplained"}),
        "request_duration_seconds": (0.25, {"leg": "single"}),
    }


def test_everything_a_reply_reports_is_counted() -> None:
    outcome = RequestOutcome(OutcomeStatus.SUCCESS, 200, 2.0, 0.5, 100, 64, 20, leg=Leg.DECODE)
    told = told_about(outcome, reason="cache_hit")
    assert told["policy_decisions_total"] == (1, {"worker": "http://a:1", "reason": "cache_hit"})
    assert told["time_to_first_token_seconds"] == (0.5, {"leg": "decode"})
    assert told["prompt_tokens_total"] == (100, {"worker": "http://a:1"})
    assert told["cached_tokens_total"] == (64, {"worker": "http://a:1"})
    assert told["completion_tokens_total"] == (20, {"worker": "http://a:1"})


def test_zero_tokens_are_a_figure_not_a_missing_one() -> None:
    told = told_about(RequestOutcome(OutcomeStatus.SUCCESS, 200, prompt_tokens=10, cached_tokens=0))
    assert told["cached_tokens_total"] == (0, {"worker": "http://a:1"})
    assert "completion_tokens_total" not in told
