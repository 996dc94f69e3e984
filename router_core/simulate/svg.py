"""Plots as inline SVG: lines over two axes, drawn from plain numbers. How they look is the page's style sheet's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 10, 44
_MOST_TICKS = 7


class Line(NamedTuple):
    """One curve: its name, its class in the style sheet, and its points from left to right."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


class Scale:
    """Values to places from 0 to 1, and the round values to write beside them."""

    def __init__(self, low: float, high: float, *, is_log: bool = False) -> None:
        """Span at least from `low` to `high`, from one round value to another.

        Args:
            low: The least value, above 0 on a logarithmic scale.
            high: The most.
            is_log: Whether it is logarithmic.
        """
        self._is_log = is_log
        if is_log:
            self.ticks = _log_ticks(low, high)
        else:
            self.ticks = tuple(_ticks(low, high if high > low else low + 1))
        self._low, self._high = (self._at(each) for each in (self.ticks[0], self.ticks[-1]))

    def place(self, value: float) -> float:
        """Return where a value lies, 0 to 1."""
        return (self._at(value) - self._low) / (self._high - self._low)

    def _at(self, value: float) -> float:
        return math.log10(value) if self._is_log else value


def plot(
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    is_x_log: bool = False,
    y_top: float | None = None,
    y_low: float = 0.0,
    spans: Sequence[tuple[float, float]] = (),
) -> str:
    """Return a plot of curves that share both axes.

    Args:
        lines: The curves.
        x: What the horizontal axis shows, with its unit.
        y: What the vertical one shows.
        is_x_log: Whether the horizontal axis is logarithmic; its values must be above 0 then.
        y_top: Where the vertical axis ends; None for the largest value.
        y_low: Where it begins.
        spans: From where to where on the horizontal axis something was out of the ordinary; they are shaded.
    """
    xs = [point[0] for line in lines for point in line.points] or [1.0, 10.0]
    ys = [point[1] for line in lines for point in line.points]
    across = Scale(min(xs) if is_x_log else min(0.0, *xs), max(xs), is_log=is_x_log)
    up = Scale(y_low, y_top if y_top is not None else max(ys, default=y_low))

    def x_of(value: float) -> float:
        return _LEFT + across.place(value) * (WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - _BOTTOM - up.place(value) * (HEIGHT - _TOP - _BOTTOM)

    what = escape(f"{y} over {x}", quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{what}">']
    for start, end in spans:
        left, right = x_of(min(start, across.ticks[-1])), x_of(min(end, across.ticks[-1]))
        parts.append(
            f'<rect class="outage" x="{left:.1f}" width="{max(1.0, right - left):.1f}" y="{_TOP}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )
    for tick in across.ticks:
        place = x_of(tick)
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>')
    for tick in up.ticks:
        place = y_of(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{place + 4.5:.1f}" text-anchor="end">{number(tick)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    parts.append(
        f'<text transform="translate(14 {(_TOP + HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y)}</text>"
    )
    if not ys:
        parts.append(f'<text x="{middle}" y="{HEIGHT / 2}" text-anchor="middle">nothing to show</text>')
    for line in lines:
        path = " ".join(f"{x_of(px):.1f},{y_of(py):.1f}" for px, py in line.points)
        parts.append(
            f'<polyline class="curve {line.kind}" points="{path}"><title>{escape(line.name)}</title></polyline>'
        )
    return "".join([*parts, "</svg>"])


def number(value: float) -> str:
    """Return a tick's value as it is written."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _ticks(low: float, high: float) -> Iterator[float]:
    step = 10 ** math.floor(math.log10((high - low) / 2))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= _MOST_TICKS - 1:
            step *= factor
            break
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    yield from (tick * step for tick in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return round values that span the two: 1, 2 and 5 of each decade, or 1 alone where those are too many."""
    for steps in ((1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        values = [step * 10.0**decade for decade in decades for step in steps]
        first = max(at for at, value in enumerate(values) if value <= low * (1 + 1e-9))
        last = min(at for at, value in enumerate(values) if value >= high * (1 - 1e-9))
        ticks = tuple(values[first : max(last, first + 1) + 1])
        if len(ticks) <= _MOST_TICKS:
            return ticks
    return ticks
