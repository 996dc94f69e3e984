"""From figures to what Prometheus reads: families of series, samples that are read at the scrape, and their text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from router_core.observability.families import MetricKind, exposed_names, is_label_name, metric_name
from router_core.observability.sink import Cell, HistogramCell

_INFINITY = float("inf")


class Sample(NamedTuple):
    """One figure that is read when somebody scrapes, not counted as it happens.

    Attributes:
        name: As in `MetricsRegistry.count`: the prefix, and a counter's `_total`, may be left out.
        kind: Counter, gauge or histogram.
        help: What it means, one sentence.
        labels: The same label names in every sample of a name.
        value: The figure; of a histogram, the sum of its observations.
        buckets: Of a histogram, each bucket's upper bound, the last infinite, and how many observations are in it.
    """

    name: str
    kind: MetricKind
    help: str
    labels: Mapping[str, str]
    value: float
    buckets: Sequence[tuple[float, int]] = ()


Sampler = Callable[[], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one metric; their label values are in the order of `label_names`."""

    name: str
    kind: MetricKind
    help: str
    label_names: tuple[str, ...]
    series: dict[tuple[str, ...], Cell | HistogramCell] = field(default_factory=dict)


async def in_text(metrics: Iterable[Metric]) -> tuple[bytes, str]:
    """Return metrics in Prometheus' text format, and the content type of that.

    Others run after each metric: a thousand series take five milliseconds, and requests must not wait for all.
    """
    parts = []
    for metric in metrics:
        parts.append(generate_latest(_Alone(metric)))
        await asyncio.sleep(0)
    return b"".join(parts), CONTENT_TYPE_PLAIN_0_0_4


def expose(family: Family) -> Metric:
    """Return a family as `prometheus_client` wants it."""
    metric = _METRIC_OF_KIND[family.kind](family.name, family.help, labels=family.label_names)
    for values, cell in family.series.items():
        if isinstance(cell, Cell):
            metric.add_metric(values, cell.value)  # type: ignore[attr-defined]  # all but the base class have it
            continue
        buckets = zip((*cell.bounds, _INFINITY), cell.counts, strict=True)
        metric.add_metric(values, _cumulative(buckets), cell.sum)  # type: ignore[attr-defined]
    return metric


def _cumulative(buckets: Iterable[tuple[float, int]]) -> list[tuple[str, int]]:
    """Return buckets as Prometheus has them: each holds the lower ones too."""
    total = 0
    found = []
    for bound, count in buckets:
        total += count
        found.append(("+Inf" if bound == _INFINITY else repr(bound), total))
    return found


def expose_samples(
    samples: Iterable[Sample], owned: Iterable[str], refuse: Callable[[MetricKind, str, str], None]
) -> list[Metric]:
    """Return samples as `prometheus_client` wants them.

    Args:
        samples: Of any names, in any order.
        owned: Names in the exposition that are taken.
        refuse: Told kind, name and reason of each sample that is dropped.
    """
    kinds: dict[str, tuple[MetricKind, tuple[str, ...]]] = {}
    metrics: dict[str, Metric] = {}
    taken = set(owned)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for sample in samples:
        name = metric_name(sample.kind, sample.name)
        if name is None or not all(is_label_name(sample.kind, label) for label in sample.labels):
            refuse(sample.kind, sample.name, "invalid_name")
            continue
        label_names = tuple(sorted(sample.labels))
        if name not in metrics:
            if any(part in taken for part in exposed_names(sample.kind, name)):
                refuse(sample.kind, sample.name, "name_taken")
                continue
            taken |= set(exposed_names(sample.kind, name))
            kinds[name] = sample.kind, label_names
            metrics[name] = _METRIC_OF_KIND[sample.kind](name, sample.help, labels=label_names)
        if kinds[name] != (sample.kind, label_names):
            refuse(sample.kind, sample.name, "label_mismatch")
            continue
        values = tuple(sample.labels[label] for label in label_names)
        if (name, values) in seen:
            refuse(sample.kind, sample.name, "duplicate_sample")
            continue
        seen.add((name, values))
        metric = metrics[name]
        if isinstance(metric, HistogramMetricFamily):
            metric.add_metric(values, _cumulative(sample.buckets), sample.value)
        elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
            metric.add_metric(values, sample.value)
    return list(metrics.values())


class _Alone(Collector):
    """A single metric, for an exposition in steps."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


_METRIC_OF_KIND: Mapping[MetricKind, Callable[..., Metric]] = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}
