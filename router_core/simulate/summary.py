"""The figures of a run, and their spread over several. The first arrivals are left out: caches are cold then."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import WorkerRole
from router_core.simulate.record import RequestRecord, RunRecord, Sample


@dataclass(frozen=True, slots=True)
class Slo:
    """What a request must keep to count as good.

    Attributes:
        ttft_s: The longest time to first token.
        inter_token_s: The longest mean time between two tokens.
    """

    ttft_s: float = 2.0
    inter_token_s: float = 0.1

    def is_kept(self, request: RequestRecord) -> bool:
        """Whether a request that ended kept it."""
        if request.status is not OutcomeStatus.SUCCESS or request.ttft_s > self.ttft_s:
            return False
        inter_token_s = request.inter_token_s
        return inter_token_s is None or inter_token_s <= self.inter_token_s


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure is called, and how it is read.

    Attributes:
        name: Its key.
        title: For people.
        unit: `s`, `share`, `1/s`, `us` or empty.
        is_better_low: Whether less is better; None where neither is.
        group: What it is about, one of `GROUPS`.
    """

    name: str
    title: str
    unit: str
    is_better_low: bool | None
    group: str


GROUPS = ("First token", "Whole answer", "Between tokens", "Throughput", "Engines and router")
"""What figures are about, in the order of reports."""

FIGURES = (
    Figure("hit_rate", "token hit rate", "share", False, "First token"),
    Figure("ttft_mean", "TTFT mean", "s", True, "First token"),
    Figure("ttft_p50", "TTFT p50", "s", True, "First token"),
    Figure("ttft_p90", "TTFT p90", "s", True, "First token"),
    Figure("ttft_p99", "TTFT p99", "s", True, "First token"),
    Figure("e2e_mean", "end-to-end mean", "s", True, "Whole answer"),
    Figure("e2e_p50", "end-to-end p50", "s", True, "Whole answer"),
    Figure("e2e_p90", "end-to-end p90", "s", True, "Whole answer"),
    Figure("e2e_p99", "end-to-end p99", "s", True, "Whole answer"),
    Figure("inter_token_mean", "inter-token mean", "s", True, "Between tokens"),
    Figure("inter_token_p90", "inter-token p90", "s", True, "Between tokens"),
    Figure("inter_token_p99", "inter-token p99", "s", True, "Between tokens"),
    Figure("request_rate", "requests completed", "1/s", False, "Throughput"),
    Figure("output_rate", "output tokens", "1/s", False, "Throughput"),
    Figure("goodput", "requests within the SLO", "share", False, "Throughput"),
    Figure("goodput_rate", "requests within the SLO", "1/s", False, "Throughput"),
    Figure("imbalance", "busiest engine / mean", "", True, "Engines and router"),
    Figure("queue_mean", "waiting per engine", "", True, "Engines and router"),
    Figure("queue_max", "longest queue", "", True, "Engines and router"),
    Figure("utilisation", "time engines compute", "share", None, "Engines and router"),
    Figure("decision_us", "decision", "us", True, "Engines and router"),
    Figure("failed", "requests failed", "", True, "Throughput"),
    Figure("failed_share", "requests failed", "share", True, "Throughput"),
)
"""Every figure a run has, in the order of reports; not a number (NaN) where nothing was there to measure."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over several runs: the mean, the least and the most; NaN if no run has it."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value; NaN, of a run that has none, does not count beside others."""
        values = [value for value in values if not math.isnan(value)] or [math.nan]
        return cls(sum(values) / len(values), min(values), max(values))


@dataclass(frozen=True)
class Summary:
    """All figures of one policy.

    Attributes:
        policy: Its label.
        runs: The figures of each run, by name.
        figures: Their spread, by name.
        faults: What the policy did wrong, in all runs together.
        is_yardstick: Whether it is no policy but a measure for policies.
        requests: Requests that count, in all runs together.
        failures: How many of them failed, by reason.
    """

    policy: str
    runs: tuple[Mapping[str, float], ...]
    figures: Mapping[str, Spread]
    faults: Mapping[str, int]
    is_yardstick: bool = False
    requests: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Spread:
        return self.figures[name]

    def mean(self, name: str) -> float:
        """Return a figure's mean over the runs, such as `mean("ttft_p90")`."""
        return self.figures[name].mean


def summarise(records: Sequence[RunRecord], *, slo: Slo | None = None, warm_up: float = 0.1) -> Summary:
    """Return the figures of a policy's runs.

    Args:
        records: At least one run, all of one policy.
        slo: What counts as good; the default one if not given.
        warm_up: Share of the arrivals that is left out at the beginning.
    """
    slo = Slo() if slo is None else slo
    runs = tuple(MappingProxyType(figures_of(record, slo=slo, warm_up=warm_up)) for record in records)
    faults: dict[str, int] = {}
    for record in records:
        for kind, count in record.faults.items():
            faults[kind] = faults.get(kind, 0) + count
    spreads = {figure.name: Spread.of([run[figure.name] for run in runs]) for figure in FIGURES}
    requests = [request for record in records for request in counted(record, warm_up)]
    failures = Counter(request.failure.value for request in requests if request.failure is not None)
    first = records[0]
    return Summary(
        first.policy,
        runs,
        MappingProxyType(spreads),
        MappingProxyType(faults),
        first.is_yardstick,
        len(requests),
        MappingProxyType(dict(sorted(failures.items()))),
    )


def counted(record: RunRecord, warm_up: float) -> list[RequestRecord]:
    """Return the requests that count: all but the first arrivals."""
    return record.requests[int(len(record.requests) * warm_up) :]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of ordered values by nearest rank; 0 if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def figures_of(record: RunRecord, *, slo: Slo, warm_up: float) -> dict[str, float]:
    """Return one run's figures by name."""
    requests = counted(record, warm_up)
    served = [request for request in requests if request.status is OutcomeStatus.SUCCESS]
    since_s = requests[0].arrived_s if requests else 0.0
    span_s = max((request.ended_s for request in requests), default=0.0) - since_s
    good = sum(slo.is_kept(request) for request in served)
    prompt_tokens = sum(request.prompt_tokens for request in served)
    samples = [sample for sample in record.samples if since_s <= sample.at_s <= record.ended_s]
    samples = [sample for sample in samples if sample.at_s <= requests[-1].arrived_s] or samples
    figures = {
        "hit_rate": _measured(sum(request.cached_tokens for request in served), prompt_tokens),
        **_distribution("ttft", [request.ttft_s for request in served]),
        **_distribution("e2e", [request.duration_s for request in served]),
        **_distribution("inter_token", [s for r in served if (s := r.inter_token_s) is not None]),
        "request_rate": _ratio(len(served), span_s),
        "output_rate": _ratio(sum(request.output_tokens for request in served), span_s),
        "goodput": _ratio(good, len(requests)),
        "goodput_rate": _ratio(good, span_s),
        "imbalance": mean_imbalance(samples, record.roles),
        "queue_mean": _ratio(sum(sum(sample.waiting) for sample in samples), len(samples) * record.workers),
        "queue_max": max((max(sample.waiting) for sample in samples), default=0),
        "utilisation": _ratio(sum(record.busy_s), record.ended_s * record.workers),
        "decision_us": _measured(record.decision_s * 1e6, record.decisions),
        "failed": len(requests) - len(served),
        "failed_share": _ratio(len(requests) - len(served), len(requests)),
    }
    return {figure.name: figures[figure.name] for figure in FIGURES}


def imbalance(sample: Sample, roles: Sequence[WorkerRole]) -> float | None:
    """Return how many times more the busiest engine has inside than the mean one, each compared with its own role.

    Of two roles the less even one counts. None when there is nothing in any engine.
    """
    inside: dict[WorkerRole, list[int]] = {}
    for role, waiting, running in zip(roles, sample.waiting, sample.running, strict=True):
        inside.setdefault(role, []).append(waiting + running)
    return max((max(each) * len(each) / sum(each) for each in inside.values() if any(each)), default=None)


def mean_imbalance(samples: Sequence[Sample], roles: Sequence[WorkerRole]) -> float:
    """Return the mean over time; 1 when there was never anything inside."""
    ratios = [ratio for sample in samples if (ratio := imbalance(sample, roles)) is not None]
    return _ratio(sum(ratios), len(ratios)) if ratios else 1.0


def _distribution(name: str, values: list[float]) -> dict[str, float]:
    values = sorted(values) or [math.nan]
    return {
        f"{name}_mean": sum(values) / len(values),
        f"{name}_p50": percentile(values, 0.5),
        f"{name}_p90": percentile(values, 0.9),
        f"{name}_p99": percentile(values, 0.99),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _measured(part: float, whole: float) -> float:
    """Return a ratio of what was measured; NaN if nothing was, which is no 0."""
    return part / whole if whole else math.nan
