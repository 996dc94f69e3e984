"""Figures of what stands before the routes, read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from router_core.observability.exposition import Sample, Sampler
from router_core.observability.families import MetricKind


def access_sampler(refusals: Callable[[], Mapping[str, int]]) -> Sampler:
    """Return a sampler of the requests that had no key for what they asked.

    Args:
        refusals: Returns how many, by reason.
    """
    text = "Requests answered 401 or 403 for want of an API key or a scope."

    def sample() -> Iterator[Sample]:
        for reason, times in refusals().items():
            yield Sample("unauthorized_requests_total", MetricKind.COUNTER, text, {"reason": reason}, times)

    return sample


class AdmissionFigures(Protocol):
    """What admission tells of itself."""

    @property
    def is_needed(self) -> bool:
        """Whether anything is limited."""

    @property
    def running(self) -> int:
        """Requests that were let in and are not over."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""

    @property
    def results(self) -> Mapping[tuple[str, str], int]:
        """What became of requests: (key, result) -> times."""


def admission_sampler(admission: AdmissionFigures) -> Sampler:
    """Return a sampler of who was let in, who waits and who was turned away; of nothing while nothing is limited."""
    text = "Requests by API key and what became of them: admitted, queue_full, queue_timeout, rate_limited, left."

    def sample() -> Iterator[Sample]:
        if admission.is_needed:
            gauge = MetricKind.GAUGE
            yield Sample("admission_requests_active", gauge, "Admitted requests in flight.", {}, admission.running)
            yield Sample("admission_queue_length", gauge, "Requests that wait for their turn.", {}, admission.waiting)
        for (key, result), times in admission.results.items():
            labels = {"key": key, "result": result}
            yield Sample("admission_requests_total", MetricKind.COUNTER, text, labels, times)

    return sample
