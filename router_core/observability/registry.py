"""The metrics of one router: who may count what.

Figures are kept in plain cells, because the hot path counts several times a request; `prometheus_client` sees them only
when somebody scrapes. Everything here runs in one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router_core.observability.compat import renamed
from router_core.observability.exposition import Family, Sample, Sampler, expose, expose_samples, in_text
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
        self._families: dict[str, Family] = {}
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

    def forget(self, labels: Mapping[str, Collection[str]]) -> None:
        """Remove every series that has one of the values of each of these labels: those of workers that left for good.

        Without it a fleet whose addresses change fills a metric up to `max_series`.
        """
        for family in self._families.values():
            if not labels.keys() <= set(family.label_names):
                continue
            wanted = [(family.label_names.index(name), frozenset(values)) for name, values in labels.items()]
            for series in [key for key in family.series if all(key[place] in values for place, values in wanted)]:
                del family.series[series]
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
        """Return all metrics in Prometheus' text format, and the content type of that; others run in between."""
        return await in_text(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as `prometheus_client` wants them."""
        # Samples first: one that has to be dropped is counted in this scrape.
        sampled = expose_samples(self._samples(), self._owners, self._refuse)
        ours = [expose(family) for family in self._families.values()] if self._compat else []
        for family in tuple(self._families.values()):
            yield expose(family)
        yield from sampled
        if self._compat:
            yield from renamed((*ours, *sampled), self._compat)

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

    def _find_family(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> Family | None:
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
        family = self._families[full_name] = Family(full_name, kind, text, tuple(sorted(labels)))
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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
