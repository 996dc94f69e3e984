"""Figures that are read when somebody scrapes: the state of workers and policies. Who left is not in the next scrape.

Each function here returns a sampler for `MetricsRegistry.add_sampler`; they are given plain callables and protocols, so
this file knows neither pools nor policy managers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Protocol

from router_core.contract.worker import Circuit, Worker
from router_core.observability.exposition import Sample, Sampler
from router_core.observability.families import MetricKind
from router_core.plugin_host.decision_times import DecisionTimes
from router_core.plugin_host.faults import FaultKind


class ManagedPolicy(Protocol):
    """What a policy's manager tells of it."""

    @property
    def name(self) -> str:
        """The policy's name, as in the config."""

    @property
    def source(self) -> str:
        """Where it comes from, such as `router-policy-cache-aware 0.1.0`."""

    @property
    def plugins(self) -> Iterable[str]:
        """The names of it, its wrappers and observers."""

    @property
    def faults(self) -> Mapping[tuple[str, str], int]:
        """How often each plugin (policy or observer) did wrong: (plugin, kind of fault) -> times."""

    @property
    def is_quarantined(self) -> bool:
        """Whether the fallback decides in its stead."""

    @property
    def decision_times(self) -> DecisionTimes:
        """How often it decided, and how long it took."""


def worker_sampler(pool: str, workers: Callable[[], Iterable[Worker]]) -> Sampler:
    """Return a sampler of the workers' health and load.

    Args:
        pool: The pool's name.
        workers: Returns the present members of the pool.
    """

    def sample() -> Iterator[Sample]:
        for worker in workers():
            labels = {"pool": pool, "worker": worker.url}
            for name, kind, text, read in _WORKER_FIGURES:
                yield Sample(name, kind, text, labels, read(worker))

    return sample


class Freshness(Protocol):
    """How far a worker's telemetry can be trusted."""

    @property
    def age_s(self) -> float | None:
        """Seconds since its reading was taken; None when it has none."""

    @property
    def failures(self) -> int:
        """Polls that failed since the last that succeeded."""


def telemetry_sampler(pool: str, freshness: Callable[[], Mapping[str, Freshness]]) -> Sampler:
    """Return a sampler of how fresh the telemetry of a pool's workers is.

    Args:
        pool: The pool's name.
        freshness: Returns it by the worker's url.
    """
    age = "Seconds since an engine told its load; not there while nothing is known."
    failures = "Questions in a row that an engine did not answer."

    def sample() -> Iterator[Sample]:
        for url, fresh in freshness().items():
            labels = {"pool": pool, "worker": url}
            if fresh.age_s is not None:
                yield Sample("worker_telemetry_age_seconds", MetricKind.GAUGE, age, labels, fresh.age_s)
            yield Sample("worker_telemetry_failures", MetricKind.GAUGE, failures, labels, fresh.failures)

    return sample


class SourceState(Protocol):
    """How a membership source is."""

    @property
    def name(self) -> str:
        """Tells it apart."""

    @property
    def is_running(self) -> bool:
        """False while it has failed and waits to be run again."""

    @property
    def age_s(self) -> float | None:
        """Seconds since it was last heard of; None before its first report."""

    @property
    def failures(self) -> int:
        """How often it failed."""

    @property
    def workers(self) -> int:
        """How many workers its last list had."""

    @property
    def is_degraded(self) -> bool:
        """Whether it cannot be relied upon."""


def membership_sampler(states: Callable[[], Iterable[SourceState]]) -> Sampler:
    """Return a sampler of the membership sources."""

    def sample() -> Iterator[Sample]:
        gauge, counter = MetricKind.GAUGE, MetricKind.COUNTER
        for state in states():
            labels = {"source": state.name}
            text = "1 while a membership source runs; 0 while it has failed and waits to be run again."
            yield Sample("membership_source_up", gauge, text, labels, int(state.is_running))
            if state.age_s is not None:
                text = "Seconds since a membership source was last heard of."
                yield Sample("membership_report_age_seconds", gauge, text, labels, state.age_s)
            text = "How often a membership source failed."
            yield Sample("membership_failures_total", counter, text, labels, state.failures)
            text = "Workers in a membership source's last list."
            yield Sample("membership_workers", gauge, text, labels, state.workers)

    return sample


def policy_sampler(pool: str, current: Callable[[], ManagedPolicy]) -> Sampler:
    """Return a sampler of one pool's policy.

    Args:
        pool: The pool's name.
        current: Returns the manager of the policy it has now.
    """

    def sample() -> Iterator[Sample]:
        gauge, counter = MetricKind.GAUGE, MetricKind.COUNTER
        policy = current()
        labels = {"pool": pool, "policy": policy.name}
        info = labels | {"source": policy.source}
        yield Sample("policy_info", gauge, "Which policy a pool has; always 1.", info, 1)
        yield Sample(
            "policy_quarantined", gauge, "1 while the fallback decides instead.", labels, int(policy.is_quarantined)
        )
        text, times = "Seconds the policy took to decide.", policy.decision_times
        yield Sample("policy_decision_seconds", MetricKind.HISTOGRAM, text, labels, times.seconds, times.buckets)
        # From 0 on: what Prometheus first sees at 4 has not increased.
        known = dict.fromkeys(product(policy.plugins, map(str, FaultKind)), 0)
        for (plugin, kind), count in {**known, **policy.faults}.items():
            of_plugin = {"pool": pool, "plugin": plugin, "kind": kind}
            yield Sample("policy_faults_total", counter, "Faults of a policy or observer.", of_plugin, count)

    return sample


def traffic_sampler(
    *,
    connections: Callable[[], int],
    refusals: Callable[[], Mapping[int, int]],
    buffered_bytes: Callable[[], int],
    buffers_full: Callable[[], int],
    client_stalls: Callable[[], int],
    handshake_failures: Callable[[], Mapping[str, int]],
    shortages: Callable[[], Mapping[str, int]],
    unrouted: Callable[[], Mapping[str, Mapping[str, int]]],
    proxied_unknown: Callable[[], int],
) -> Sampler:
    """Return a sampler of what happens before a worker is picked.

    Args:
        connections: Clients connected now.
        refusals: Requests refused for their form or an unknown path or method, by HTTP status.
        buffered_bytes: Of bodies that came in pieces, until their requests are over.
        buffers_full: Requests refused because that was too much.
        client_stalls: Clients cut off because they took nothing of their answer for too long.
        handshake_failures: Clients that got no TLS connection, by reason.
        shortages: Connections to workers that the router had no means to make, by what was lacking.
        unrouted: Requests no worker was picked for, by pool and reason; the pool is empty where none was found.
        proxied_unknown: Requests on paths the router does not know that were given to a worker.
    """

    def sample() -> Iterator[Sample]:
        gauge, counter = MetricKind.GAUGE, MetricKind.COUNTER
        yield Sample("client_connections_active", gauge, "Client connections open now.", {}, connections())
        yield Sample(
            "proxied_unknown_requests_total",
            counter,
            "Requests on paths the router does not know that were given to a worker.",
            {},
            proxied_unknown(),
        )
        for status, times in refusals().items():
            text = (
                "Requests refused: malformed, too large or too slow, or a path (404) or method (405) that nobody takes."
            )
            yield Sample("refused_requests_total", counter, text, {"status": str(status)}, times)
        text = "Bytes held of requests' bodies that came in pieces, until their requests are over."
        yield Sample("buffered_body_bytes", gauge, text, {}, buffered_bytes())
        text = "Requests refused because more bytes of bodies came than limits.max_buffered_bytes."
        yield Sample("buffers_full_requests_total", counter, text, {}, buffers_full())
        yield Sample(
            "client_stalls_total",
            counter,
            "Clients cut off because they took nothing of an answer for limits.client_stall_timeout_s.",
            {},
            client_stalls(),
        )
        for reason, times in handshake_failures().items():
            text = "Clients that got no TLS connection."
            yield Sample("tls_handshake_failures_total", counter, text, {"reason": reason}, times)
        for lacking, times in shortages().items():
            text = "Connections to workers that the router lacked something of its own for: files, ports, memory."
            yield Sample("upstream_shortages_total", counter, text, {"lacking": lacking}, times)
        for pool, reasons in unrouted().items():
            text = "Requests answered with an error because no worker was picked, or no pool found."
            for reason, times in reasons.items():
                yield Sample("unrouted_requests_total", counter, text, {"pool": pool, "reason": reason}, times)

    return sample


_CIRCUIT_STATES = {Circuit.CLOSED: 0, Circuit.HALF_OPEN: 1, Circuit.PROBING: 1, Circuit.OPEN: 2}
_WORKER_FIGURES: tuple[tuple[str, MetricKind, str, Callable[[Worker], float]], ...] = (
    ("worker_health", MetricKind.GAUGE, "1 while health checks pass, else 0.", lambda worker: int(worker.is_healthy)),
    (
        "worker_draining",
        MetricKind.GAUGE,
        "1 while a worker gets no more requests and leaves once it has none.",
        lambda worker: int(worker.is_draining),
    ),
    (
        "worker_circuit_state",
        MetricKind.GAUGE,
        "What a worker's circuit breaker lets through: 0 all (closed), 1 one at a time (half open), 2 nothing (open).",
        lambda worker: _CIRCUIT_STATES[worker.circuit],
    ),
    ("worker_requests_active", MetricKind.GAUGE, "Requests in flight on a worker.", lambda worker: worker.load),
    (
        "worker_pending_prompt_tokens",
        MetricKind.GAUGE,
        "Estimated prompt tokens sent to a worker whose prefill is not over.",
        lambda worker: worker.pending_prompt_tokens,
    ),
    (
        "worker_decode_tokens",
        MetricKind.GAUGE,
        "Estimated context tokens of the requests a worker is decoding.",
        lambda worker: worker.decode_tokens,
    ),
    (
        "worker_requests_processed_total",
        MetricKind.COUNTER,
        "Requests a worker has completed since it joined.",
        lambda worker: worker.requests_processed,
    ),
)
