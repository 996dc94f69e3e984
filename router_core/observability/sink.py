"""The hot half of the metrics: counting as cheaply as Python allows. One dict lookup and one addition an update.

Nothing in here raises, whatever it is given: what cannot be counted is dropped and accounted for by the registry.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping

from router_core.observability.families import MetricKind

_INFINITY = float("inf")


class Cell:
    """The value of one series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class HistogramCell:
    """One series of a histogram: a count for each bucket, one more for what is above them all, and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0


_Key = tuple[str, tuple[tuple[str, str], ...]]

FindCell = Callable[[MetricKind, str, Mapping[str, str]], Cell | HistogramCell | None]
"""Returns the cell of a series, made if need be; None when it is refused. Given labels whose values are text."""

Refuse = Callable[[MetricKind, str, str], None]
"""Takes note of an update that is dropped: kind, name and reason."""


class Sink:
    """Where one reporter's figures go. The registry makes these; two reporters may feed the same series.

    A series is found by name and labels as they came, so the dicts here may know it under several keys (the same labels
    in another order); what it really is, the registry decides once, when a key is new.
    """

    __slots__ = ("_counters", "_gauges", "_histograms", "_find", "_refuse")

    def __init__(self, find: FindCell, refuse: Refuse) -> None:
        self._counters: dict[_Key, Cell] = {}
        self._gauges: dict[_Key, Cell] = {}
        self._histograms: dict[_Key, HistogramCell] = {}
        self._find = find
        self._refuse = refuse

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add `value` (finite, not negative) to a counter."""
        try:
            if 0 <= value < _INFINITY:
                self._counters[name, tuple(labels.items())].value += value
                return
        except KeyError:
            known = self._meet(MetricKind.COUNTER, name, labels)
            if known is not None:
                self.count(name, value, known)
            return
        except (TypeError, ArithmeticError):
            pass
        self._refuse(MetricKind.COUNTER, name, "invalid_value")

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        try:
            self._gauges[name, tuple(labels.items())].value = value + 0.0
        except KeyError:
            known = self._meet(MetricKind.GAUGE, name, labels)
            if known is not None:
                self.gauge(name, value, known)
        except (TypeError, ArithmeticError):
            self._refuse(MetricKind.GAUGE, name, "invalid_value")

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Record one (finite) observation of a histogram."""
        try:
            if -_INFINITY < value < _INFINITY:
                cell = self._histograms[name, tuple(labels.items())]
                cell.sum += value
                cell.counts[bisect_left(cell.bounds, value)] += 1
                return
        except KeyError:
            known = self._meet(MetricKind.HISTOGRAM, name, labels)
            if known is not None:
                self.observe(name, value, known)
            return
        except (TypeError, ArithmeticError):
            pass
        self._refuse(MetricKind.HISTOGRAM, name, "invalid_value")

    def forget(self) -> None:
        """Look every series up afresh; for the registry, after it removed some."""
        self._counters.clear()
        self._gauges.clear()
        self._histograms.clear()

    def _meet(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Make a series known here; return the labels under which it now is, None when it is refused."""
        text = _as_text(labels)
        if text is None:
            self._refuse(kind, name, "invalid_label")
            return None
        cell = self._find(kind, name, text)
        if cell is None:
            return None
        key = name, tuple(text.items())
        if isinstance(cell, HistogramCell):
            self._histograms[key] = cell
        elif kind is MetricKind.COUNTER:
            self._counters[key] = cell
        else:
            self._gauges[key] = cell
        return text


_MAX_LABEL_LENGTH = 1000


def _as_text(labels: Mapping[str, object]) -> dict[str, str] | None:
    """Return labels whose values are text an exposition can hold, None when one of them cannot be."""
    text = {}
    for name, value in labels.items():
        if isinstance(value, int | float):  # `rank=3` is a slip anyone makes; other types have no good text
            value = str(value)
        if not isinstance(value, str) or len(value) > _MAX_LABEL_LENGTH:
            return None
        text[name] = value.encode("utf-8", "replace").decode()
    return text
