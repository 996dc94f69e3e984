from __future__ import annotations

import logging

import pytest

from router_core.fleet.membership.source_state import SourceState
from router_core.fleet.telemetry.poller import Freshness
from router_core.observability.registry import MetricsRegistry
from router_core.observability.signals import (
    CachePredictionCheck,
    Signal,
    SignalBoard,
    membership_check,
    telemetry_check,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Predictions:
    """A pool whose policy predicts and whose engines report."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = MetricsRegistry()
        self.check = CachePredictionCheck(self.registry, "default", self.clock)

    def served(self, predicted: float, reported: float, pool: str = "default") -> None:
        labels = {"pool": pool, "plugin": "metrics"}
        self.registry.count("cache_check_predicted_tokens_total", predicted, labels)
        self.registry.count("cache_check_reported_tokens_total", reported, labels)

    def after(self, seconds: float) -> bool:
        """Return whether it is degraded then."""
        self.clock.now += seconds
        (signal,) = self.check()
        return signal.is_degraded


def test_predictions_that_come_true_are_no_alarm():
    pool = Predictions()
    for _ in range(100):
        pool.served(1000, 900)
        assert not pool.after(5)


def test_a_policy_whose_picture_of_the_caches_died_is_noticed_and_forgiven():
    pool = Predictions()
    for _ in range(100):
        pool.served(1000, 1000)
        pool.after(5)
    for _ in range(60):
        pool.served(1000, 0)
        is_degraded = pool.after(5)
    assert is_degraded
    for _ in range(60):
        pool.served(1000, 1000)
        is_degraded = pool.after(5)
    assert not is_degraded


def test_a_few_wrong_predictions_prove_nothing():
    pool = Predictions()
    pool.served(4000, 0)
    assert not pool.after(5)


def test_where_nothing_is_predicted_or_reported_there_is_no_signal():
    pool = Predictions()
    assert list(pool.check()) == []
    pool.served(1e6, 0, pool="another")
    assert list(pool.check()) == []


@pytest.mark.parametrize(
    ("state", "is_degraded"),
    [
        (SourceState("s", True, 5.0, 0, 2, None), False),
        (SourceState("s", True, 1e6, 0, 2, None), False),
        (SourceState("s", True, 31.0, 0, 2, 30.0), True),
        (SourceState("s", True, None, 0, 0, None), True),
        (SourceState("s", False, 5.0, 1, 2, None), True),
    ],
    ids=["heard-of", "may-be-silent", "silent", "never-heard-of", "failed"],
)
def test_a_source_is_degraded_when_it_sees_its_world_no_more(state: SourceState, is_degraded: bool):
    assert [signal.is_degraded for signal in membership_check(lambda: [state])()] == [is_degraded]


def test_an_engine_that_does_not_tell_its_load_is_named():
    found = {"http://a": Freshness(1.0, 2), "http://b": Freshness(None, 3)}
    (signal,) = telemetry_check("default", lambda: found)()
    assert signal.is_degraded
    assert "1 of 2" in signal.detail
    assert "http://b" in signal.detail


def test_a_change_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture):
    signals = [Signal("telemetry", "default", False, "all well")]
    board = SignalBoard()
    board.add(lambda: signals)
    for is_degraded in (False, True, True, False, False):
        signals[:] = [Signal("telemetry", "default", is_degraded, "why")]
        board.look()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "degraded: telemetry of default: why"),
        (logging.WARNING, "recovered: telemetry of default: why"),
    ]


def test_a_check_that_raises_hides_no_other(caplog: pytest.LogCaptureFixture):
    def broken() -> list[Signal]:
        raise RuntimeError("cannot look")

    board = SignalBoard()
    board.add(broken)
    board.add(lambda: [Signal("policy", "default", True, "quarantined")])
    assert [signal.is_degraded for signal in board.look()] == [True]
    assert [(sample.labels["signal"], sample.value) for sample in board.sample()] == [("policy", 1)]
    assert "cannot look" in caplog.text
