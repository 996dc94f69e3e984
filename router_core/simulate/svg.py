"""Plots as inline SVG: lines over an axis, drawn from plain numbers. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 40


class Line(NamedTuple):
    """One curve: its name, which of the page's colours it has, and its points from left to right."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]


def plot(lines: Sequence[Line], *, x: str, y: str, is_x_log: bool = False) -> str:
    """Return a plot of curves that share both axes.

    Args:
        lines: At least one.
        x: What the horizontal axis shows, with its unit.
        y: What the vertical one shows.
        is_x_log: Whether the horizontal axis is logarithmic; its values must be above 0 then.
    """
    xs = [point[0] for line in lines for point in line.points] or [0.0, 1.0]
    ys = [point[1] for line in lines for point in line.points] or [0.0, 1.0]
    low, high = min(xs), max(xs)
    if is_x_log:
        low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
    else:
        low = min(0.0, low)
    high = high if high > low else low + 1
    top = max(ys) or 1.0

    def across(value: float) -> float:
        place = math.log10(value) if is_x_log else value
        return _LEFT + (place - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return HEIGHT - _BOTTOM - value / top * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y)} over {escape(x)}">']
    ticks = [10.0**power for power in range(int(low), int(high) + 1)] if is_x_log else _ticks(low, high)
    for tick in ticks:
        place = across(tick)
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_label(tick)}</text>')
    for tick in _ticks(0.0, top):
        place = up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{_label(tick)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    parts.append(
        f'<text transform="translate(13 {(HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )
    for line in lines:
        path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in line.points)
        parts.append(
            f'<polyline class="curve c{line.colour}" points="{path}"><title>{escape(line.name)}</title></polyline>'
        )
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> Iterator[float]:
    step = 10 ** math.floor(math.log10((high - low) / 2))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    tick = math.ceil(low / step) * step
    while tick <= high * (1 + 1e-9):
        yield tick
        tick += step


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
