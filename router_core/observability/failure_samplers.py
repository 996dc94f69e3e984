"""Figures of what is done about failures, read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from router_core.observability.exposition import Sample, Sampler
from router_core.observability.families import MetricKind


class RetryFigures(Protocol):
    """What is known of further attempts."""

    @property
    def granted(self) -> int:
        """Further attempts granted so far."""

    @property
    def refused(self) -> int:
        """Further attempts refused because the budget was used up."""


def failure_sampler(retries: RetryFigures, openings: Callable[[], Mapping[str, int]]) -> Sampler:
    """Return a sampler of retries and circuit breakers.

    Args:
        retries: The further attempts.
        openings: Returns how often each worker's circuit was opened, by url.
    """

    def sample() -> Iterator[Sample]:
        counter = MetricKind.COUNTER
        yield Sample(
            "retries_total",
            counter,
            "Further attempts at requests that failed; those after a refused connection do not count.",
            {},
            retries.granted,
        )
        yield Sample(
            "retries_refused_total",
            counter,
            "Further attempts not made because the retry budget was used up.",
            {},
            retries.refused,
        )
        for url, times in openings().items():
            yield Sample(
                "worker_circuit_openings_total",
                counter,
                "How often a worker's circuit was opened.",
                {"worker": url},
                times,
            )

    return sample
