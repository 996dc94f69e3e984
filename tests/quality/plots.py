"""Dot plots as SVG files: a panel for each cell, a row for each entrant. They follow the reader's light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from router_core.simulate import Spread

_LABELS, _PANEL, _GAP, _ROW, _HEAD, _FOOT = 215, 210, 22, 17, 44, 26
_ACROSS = 3

_STYLE = """
.ink { fill: #1c2430; } .soft { fill: #5d6878; } .rule { stroke: #dfe4ea; } .band { fill: #eef3fa; }
.ours { fill: #2563a8; stroke: #2563a8; } .old { fill: #c2571a; stroke: #c2571a; }
.other { fill: #7b8694; stroke: #7b8694; } .known { fill: none; stroke: #1f8a5b; }
@media (prefers-color-scheme: dark) {
.ink { fill: #e6eaf0; } .soft { fill: #9aa5b4; } .rule { stroke: #2c343e; } .band { fill: #1b2430; }
.ours { fill: #6ea8ea; stroke: #6ea8ea; } .old { fill: #f0935a; stroke: #f0935a; }
.other { fill: #8b97a6; stroke: #8b97a6; } .known { fill: none; stroke: #5cc796; } }
text { font: 11px system-ui, sans-serif; } .title { font-weight: 600; }
"""


class Row(NamedTuple):
    """An entrant: its label, how it is drawn (`ours`, `old`, `other`, `known`), its figure in each panel, if any."""

    label: str
    kind: str
    values: Sequence[Spread | None]


def dot_plot(titles: Sequence[str], rows: Sequence[Row], *, unit: str, what: str, is_log: bool) -> str:
    """Return the picture: the mean as a dot (a diamond for what knows more than a router), least to most as a line.

    Args:
        titles: One for each panel.
        rows: From top to bottom.
        unit: What the axis shows.
        what: What the picture shows, for those who cannot see it.
        is_log: Whether the axis is logarithmic.
    """
    lines = -(-len(titles) // _ACROSS)
    high = _HEAD + len(rows) * _ROW + _FOOT
    across = min(_ACROSS, len(titles))
    width, height = _LABELS + across * (_PANEL + _GAP), lines * high
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(what)}"><title>{escape(what)}</title><style>{_STYLE}</style>\n'
    ]
    for line in range(lines):
        top = line * high + _HEAD
        for place, row in enumerate(rows):
            y = top + place * _ROW
            if row.kind == "ours":
                parts.append(f'<rect class="band" x="0" y="{y}" width="{width}" height="{_ROW}"/>')
            shade = "ink" if row.kind in {"ours", "old"} else "soft"
            x = _LABELS - 10
            parts.append(f'<text class="{shade}" x="{x}" y="{y + 12}" text-anchor="end">{escape(row.label)}</text>\n')
        for column in range(min(_ACROSS, len(titles) - line * _ACROSS)):
            number = line * _ACROSS + column
            left = _LABELS + column * (_PANEL + _GAP)
            parts.append(_panel(left, top, titles[number], rows, number, unit=unit, is_log=is_log))
    return "".join([*parts, "</svg>\n"])


def _digits(decades: float) -> tuple[float, ...]:
    return (1, 1.5, 2, 3, 4, 6, 8) if decades < 0.8 else (1, 2, 5) if decades < 1.6 else (1,)


def _panel(left: int, top: int, title: str, rows: Sequence[Row], number: int, *, unit: str, is_log: bool) -> str:
    spreads = [spread for row in rows if (spread := row.values[number]) is not None]
    low, high = min(spread.low for spread in spreads), max(spread.high for spread in spreads)
    if is_log:
        low, high = math.log10(low), math.log10(high)
        ticks = [
            (power, digit * 10.0**power)
            for power in range(math.floor(low), math.ceil(high) + 1)
            for digit in _digits(high - low)
        ]
        marks = [value for _, value in ticks]
    else:
        low, high = 0.0, max(high, 0.1)
        marks = [step * 0.2 for step in range(6)]
    margin = (high - low) * 0.04 or 0.1
    low, high = (low - margin if is_log else low), high + margin

    def at(value: float) -> float:
        return left + ((math.log10(value) if is_log else value) - low) / (high - low) * _PANEL

    bottom = top + len(rows) * _ROW
    name, _, rest = title.partition(", ")
    parts = [
        f'<text class="ink title" x="{left}" y="{top - 22}">{escape(name)}</text>',
        f'<text class="soft" x="{left}" y="{top - 8}">{escape(rest)}</text>\n',
    ]
    for mark in marks:
        x = at(mark)
        if left <= x <= left + _PANEL:
            parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            label = f"{mark:g} s" if unit == "s" else f"{mark:.0%}"
            parts.append(f'<text class="soft" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>\n')
    for place, row in enumerate(rows):
        spread, y = row.values[number], top + place * _ROW + _ROW / 2
        if spread is None:
            continue
        x = at(spread.mean)
        told = f"{row.label}: {spread.mean:.3g} ({spread.low:.3g} to {spread.high:.3g})"
        start, end = at(spread.low), at(spread.high)
        parts.append(f'<g class="{row.kind}"><title>{escape(told)}</title>')
        parts.append(f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}" stroke-width="2"/>')
        if row.kind == "known":
            corners = f"{x:.1f},{y - 4.5} {x + 4.5:.1f},{y} {x:.1f},{y + 4.5} {x - 4.5:.1f},{y}"
            parts.append(f'<polygon points="{corners}" stroke-width="1.5"/></g>\n')
        else:
            parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4"/></g>\n')
    return "".join(parts)
