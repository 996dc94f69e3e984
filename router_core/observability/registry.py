"""The metrics of one router: who may count what, and the exposition.

Figures are kept in plain cells, because the hot path counts several times a request; `prometheus_client` sees them only
when somebody scrapes. Everything here runs in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from router_core.observability.compat import renamed
from router_core.observability.families import (
    HELP,
    PREFIX,
    MetricKind,
    buckets_for,
    exposed_names,
    is_label_name,
    metric_name,
)
from router_core.observability.sink import Cell, HistogramCell, MetricSink

log = logging.getLogger(__name__)

_DROPPED = PREFIX + "metrics_dropped_total"
_INFINITY = float("inf")


class Sample(NamedTuple):
    """One figure that is read when somebody scrapes, not counted as it happens.

    Attributes:
        name: As in `MetricsRegistry.count`: the prefix, and a counter's `_total`, may be left out.
        kind: Counter, gauge or summary.
        help: What it means, one sentence.
        labels: The same label names in every sample of a name.
        value: The figure; of a summary, the sum of its observations.
        observations: Of a summary, how many observations there were.
    """

    name: str
    kind: MetricKind
    help: str
    labels: Mapping[str, str]
    value: float
    observations: int = 0


Sampler = Callable[[], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class _Family:
    """All series of one metric; their label values are in the order of `label_names`."""

    name: str
    kind: MetricKind
    help: str
    label_names: tuple[str, ...]
    series: dict[tuple[str, ...], Cell | HistogramCell] = field(default_factory=dict)


class MetricsRegistry(MetricSink, Collector):
    """Holds every metric of the router and writes them out for Prometheus; the metric sink of every pool.

    The first use of a name fixes its kind and label names; a later use that differs is dropped, logged once and counted
    in `router_core_metrics_dropped_total`. Nothing raises on the way in.

    Args:
        max_series: How many series one metric may have; more are dropped.
        max_metrics: How many metrics there may be.
        compat: Gateways under whose names the figures are exposed too; see `compat`.
    """

    def __init__(self, *, max_series: int = 10_000, max_metrics: int = 1_000, compat: Sequence[str] = ()) -> None:
        super().__init__()
        self._max_series = max_series
        self._max_metrics = max_metrics
        self._compat = tuple(compat)
        self._families: dict[str, _Family] = {}
        self._owners: dict[str, str] = {}  # every name in the exposition -> the metric it belongs to
        self._samplers: list[Sampler] = []
        self._labelled: list[MetricSink] = []
        self._said: set[tuple[str, str]] = set()
        dropped = self._find_family(MetricKind.COUNTER, _DROPPED, {"metric": "", "reason": ""})
        self._dropped: dict[tuple[str, ...], Cell | HistogramCell] = {} if dropped is None else dropped.series

    # --- feeding ---

    def add_sampler(self, sampler: Sampler) -> None:
        """Call `sampler` at each scrape; what it no longer yields is gone from the exposition."""
        self._samplers.append(sampler)

    def labelled(self, labels: Mapping[str, str]) -> MetricSink:
        """Return a sink that gives these labels to all it is fed; they cost nothing when it is fed."""
        sink = _LabelledSink(self, labels)
        self._labelled.append(sink)
        return sink

    def forget(self, labels: Mapping[str, str]) -> None:
        """Remove every series that has all of these labels: those of a worker that left for good.

        Without it a fleet whose addresses change fills a metric up to `max_series`.
        """
        for family in self._families.values():
            if not labels.keys() <= set(family.label_names):
                continue
            wanted = [(family.label_names.index(name), value) for name, value in labels.items()]
            for values in [key for key in family.series if all(key[place] == value for place, value in wanted)]:
                del family.series[values]
        self._look_up_afresh()
        for sink in self._labelled:
            sink._look_up_afresh()

    # --- reading ---

    def total(self, name: str, labels: Mapping[str, str]) -> float:
        """Return the sum of a counter's series that have all of these labels; 0 when there is none."""
        family = self._families.get(metric_name(MetricKind.COUNTER, name) or "")
        if family is None or not labels.keys() <= set(family.label_names):
            return 0.0
        wanted = [(family.label_names.index(label), value) for label, value in labels.items()]
        return sum(
            cell.value
            for values, cell in family.series.items()
            if isinstance(cell, Cell) and all(values[place] == value for place, value in wanted)
        )

    # --- exposing ---

    async def render(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and the content type of that.

        Others run after each metric: a thousand series take five milliseconds, and requests must not wait for all.
        """
        parts = []
        for metric in self.collect():
            parts.append(generate_latest(_Alone(metric)))
            await asyncio.sleep(0)
        return b"".join(parts), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as `prometheus_client` wants them."""
        sampled = list(self._sampled_families())  # first: a sample that has to be dropped is counted in this scrape
        ours = [_expose(family) for family in self._families.values()] if self._compat else []
        for family in tuple(self._families.values()):
            yield _expose(family)
        yield from sampled
        if self._compat:
            yield from renamed((*ours, *sampled), self._compat)

    def _sampled_families(self) -> Iterator[Metric]:
        kinds: dict[str, tuple[MetricKind, tuple[str, ...]]] = {}
        metrics: dict[str, Metric] = {}
        taken = dict(self._owners)
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for sample in self._samples():
            name = metric_name(sample.kind, sample.name)
            if name is None or not all(is_label_name(sample.kind, label) for label in sample.labels):
                self._refuse(sample.kind, sample.name, "invalid_name")
                continue
            label_names = tuple(sorted(sample.labels))
            if name not in metrics:
                if any(part in taken for part in exposed_names(sample.kind, name)):
                    self._refuse(sample.kind, sample.name, "name_taken")
                    continue
                taken.update(dict.fromkeys(exposed_names(sample.kind, name), name))
                kinds[name] = sample.kind, label_names
                metrics[name] = _METRIC_OF_KIND[sample.kind](name, sample.help, labels=label_names)
            if kinds[name] != (sample.kind, label_names):
                self._refuse(sample.kind, sample.name, "label_mismatch")
                continue
            values = tuple(sample.labels[label] for label in label_names)
            if (name, values) in seen:
                self._refuse(sample.kind, sample.name, "duplicate_sample")
                continue
            seen.add((name, values))
            metric = metrics[name]
            if isinstance(metric, SummaryMetricFamily):
                metric.add_metric(values, sample.observations, sample.value)
            elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
                metric.add_metric(values, sample.value)
        yield from metrics.values()

    def _samples(self) -> Iterator[Sample]:
        for sampler in self._samplers:
            try:
                yield from list(sampler())
            except Exception:  # one figure that cannot be read must not blind an operator to all others
                log.exception("a metrics sampler failed: %r", sampler)

    # --- deciding what a new name or label set is ---

    def _find_cell(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> Cell | HistogramCell | None:
        family = self._find_family(kind, name, labels)
        if family is None:
            return None
        if len(labels) != len(family.label_names) or not all(label in labels for label in family.label_names):
            self._refuse(kind, name, "label_mismatch", f"its labels are {_listed(family.label_names)}")
            return None
        values = tuple(labels[label] for label in family.label_names)
        cell = family.series.get(values)
        if cell is None:
            if len(family.series) >= self._max_series:
                self._refuse(kind, name, "too_many_series", f"it has {self._max_series} series already")
                return None
            cell = HistogramCell(buckets_for(family.name)) if kind is MetricKind.HISTOGRAM else Cell()
            family.series[values] = cell
        return cell

    def _find_family(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> _Family | None:
        full_name = metric_name(kind, name)
        if full_name is None:
            self._refuse(kind, name, "invalid_name")
            return None
        family = self._families.get(full_name)
        if family is not None and family.kind is kind:
            return family
        for part in exposed_names(kind, full_name):
            if part in self._owners:
                owner = self._families[self._owners[part]]
                self._refuse(kind, name, "name_taken", f"the name is taken by the {owner.kind} {owner.name}")
                return None
        if not all(is_label_name(kind, label) for label in labels):
            self._refuse(kind, name, "invalid_label", f"not all of {_listed(labels)} can be a label's name")
            return None
        if len(self._families) >= self._max_metrics:
            self._refuse(kind, name, "too_many_metrics", f"there are {self._max_metrics} metrics already")
            return None
        reporter = f"plugin {labels['plugin']}" if "plugin" in labels else "the router"
        text = HELP.get(full_name, f"Reported by {reporter}.")
        family = self._families[full_name] = _Family(full_name, kind, text, tuple(sorted(labels)))
        self._owners.update(dict.fromkeys(exposed_names(kind, full_name), full_name))
        return family

    def _refuse(self, kind: MetricKind, name: object, reason: str, remedy: str = "") -> None:
        full_name = metric_name(kind, name)
        known = full_name if full_name in self._owners else ""
        cell = self._dropped.setdefault((known or "", reason), Cell())
        if isinstance(cell, Cell):
            cell.value += 1
        said = str(full_name), reason
        if said not in self._said and len(self._said) < self._max_metrics:
            self._said.add(said)
            log.warning("dropped %s %.100r: %s%s", kind, name, reason.replace("_", " "), remedy and f"; {remedy}")


class _LabelledSink(MetricSink):
    """Feeds a registry, with labels of its own added to each series when it is met first."""

    def __init__(self, registry: MetricsRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._registry = registry
        self._labels = dict(labels)

    def _find_cell(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> Cell | HistogramCell | None:
        return self._registry._find_cell(kind, name, {**labels, **self._labels})

    def _refuse(self, kind: MetricKind, name: object, reason: str) -> None:
        self._registry._refuse(kind, name, reason)


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
    MetricKind.SUMMARY: SummaryMetricFamily,
}


def _expose(family: _Family) -> Metric:
    metric = _METRIC_OF_KIND[family.kind](family.name, family.help, labels=family.label_names)
    for values, cell in family.series.items():
        if isinstance(cell, Cell):
            metric.add_metric(values, cell.value)  # type: ignore[attr-defined]  # all but the base class have it
            continue
        total = 0
        buckets = []
        for bound, count in zip((*cell.bounds, _INFINITY), cell.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == _INFINITY else repr(bound), total))
        metric.add_metric(values, buckets, cell.sum)  # type: ignore[attr-defined]
    return metric


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
