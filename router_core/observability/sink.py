"""The hot half of the metrics: counting as cheaply as Python allows. One dict lookup and one addition an update.

Nothing in here raises, whatever it is given: what cannot be counted is dropped and accounted for by the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping

from router_core.observability.families import MetricKind

_INFINITY = float("inf")


class Cell:
    """The value of one series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, value: float) -> None:
        """Add what a counter may be given; nothing else is taken."""
        if 0 <= value < _INFINITY:
            self.value += value


class HistogramCell:
    """One series of a histogram: a count for each bucket, one more for what is above them all, and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Record a finite value; no other is taken."""
        if -_INFINITY < value < _INFINITY:
            self.sum += value
            self.counts[bisect_left(self.bounds, value)] += 1


_Key = tuple[str, tuple[tuple[str, str], ...]]


class MetricSink(ABC):
    """Where figures go. What a new series is, and whether it may be, its subclass decides; the rest is here.

    A series is found by name and labels as they came, so the dicts here may know it under several keys: the same labels
    in another order.
    """

    def __init__(self) -> None:
        self._counters: dict[_Key, Cell] = {}
        self._gauges: dict[_Key, Cell] = {}
        self._histograms: dict[_Key, HistogramCell] = {}

    @abstractmethod
    def _find_cell(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> Cell | HistogramCell | None:
        """Return the cell of a series, made if need be; None when it is refused."""

    @abstractmethod
    def _refuse(self, kind: MetricKind, name: object, reason: str) -> None:
        """Take note of an update that is dropped."""

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

    def counter(self, name: str, labels: Mapping[str, str]) -> Callable[[float], None]:
        """Return what adds to one counter; one that is refused takes everything and counts nothing."""
        known = self._meet(MetricKind.COUNTER, name, labels)
        cell = None if known is None else self._counters.get((name, tuple(known.items())))
        return _refused if cell is None else cell.add

    def histogram(self, name: str, labels: Mapping[str, str]) -> Callable[[float], None]:
        """Return what records one histogram's observations; one that is refused records none."""
        known = self._meet(MetricKind.HISTOGRAM, name, labels)
        cell = None if known is None else self._histograms.get((name, tuple(known.items())))
        return _refused if cell is None else cell.observe

    def _look_up_afresh(self) -> None:
        """Ask for every series again; after some were removed."""
        self._counters.clear()
        self._gauges.clear()
        self._histograms.clear()

    def _meet(self, kind: MetricKind, name: str, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Make a series known here; return the labels under which it now is, None when it is refused."""
        text = _as_text(labels)
        if text is None:
            self._refuse(kind, name, "invalid_label")
            return None
        cell = self._find_cell(kind, name, text)
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


def _refused(value: float) -> None:
    """Stand in for a series that may not be."""


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
