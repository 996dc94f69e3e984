"""Figures of what is done about failures, read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from router_core.contract.worker import Circuit
from router_core.observability.exposition import Sample, Sampler
from router_core.observability.families import MetricKind


class RetryFigures(Protocol):
    """What is known of further attempts."""

    @property
    def granted(self) -> Mapping[str, int]:
        """Further attempts granted so far, by why the one before had failed."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Further attempts refused, by what was used up."""

    @property
    def results(self) -> Mapping[str, int]:
        """Requests that had further attempts and are over, by what came of them."""


def retry_sampler(retries: RetryFigures) -> Sampler:
    """Return a sampler of further attempts."""
    counter = MetricKind.COUNTER

    def sample() -> Iterator[Sample]:
        reasons = "not_connected, lost, silent, gone, full, status"
        text = f"Further attempts at requests, by why the one before failed: {reasons}."
        for reason, times in retries.granted.items():
            yield Sample("retries_total", counter, text, {"reason": reason}, times)
        text = "Further attempts not made, by what was used up: attempts, deadline, retry_after, budget."
        for reason, times in retries.refused.items():
            yield Sample("retries_refused_total", counter, text, {"reason": reason}, times)
        text = "Requests that had further attempts, by what came of them: served, failed, cancelled."
        for result, times in retries.results.items():
            yield Sample("retried_requests_total", counter, text, {"result": result}, times)

    return sample


def circuit_sampler(transitions: Callable[[], Mapping[str, Mapping[tuple[Circuit, Circuit], int]]]) -> Sampler:
    """Return a sampler of what circuit breakers did; what state they are in is among the workers' figures.

    Args:
        transitions: Returns how often each worker's circuit went from one state to another, by url.
    """
    text = "How often a worker's circuit went from one state to another: closed, open, half_open."

    def sample() -> Iterator[Sample]:
        for url, counts in transitions().items():
            for (before, after), times in counts.items():
                labels = {"worker": url, "from": before.value, "to": after.value}
                yield Sample("worker_circuit_transitions_total", MetricKind.COUNTER, text, labels, times)

    return sample
