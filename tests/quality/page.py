"""Writes the generated parts of docs/explanation/routing-quality.md, and its plots."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from cells import ENTRANTS, FLAGSHIP, GIVEN, GREEDY, OLD, POOLED, SEEDS, Cell, Entrant
from plots import Row, dot_plot
from results import LEARNED_AFTER, ROOT, Result, Results

from router_core.simulate import Spread

FOLDER = ROOT / "docs" / "explanation"
PAGE = FOLDER / "routing-quality.md"

_OF_OLD = {
    "conversation-4-80": 2.3,
    "conversation-16-80": 2.3,
    "conversation-4-95": 2.0,
    "agents-4-80": 1.08,
    "short-4-95": 2.8,
}
"""How many times better than the old router's cache_aware p90 TTFT is to be at least."""


def write_public(cells: Sequence[Cell], results: Results) -> None:
    """Write what the public traces show."""
    _write("aims", _aims(cells, results))
    _write("public", _pictures("routing-quality", cells, results) + _figures(cells, results))


def write_synthetic(cells: Sequence[Cell], results: Results) -> None:
    """Write what the synthetic workloads show."""
    _write("synthetic", _pictures("routing-quality-synthetic", cells, results) + _figures(cells, results))


def _write(region: str, text: str) -> None:
    begin, end = f"<!-- begin generated: {region} -->\n", "<!-- end generated -->\n"
    page = PAGE.read_text()
    written, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{PAGE}: has {count} regions {region}, not one")
    PAGE.write_text(written)


# --- aims ---


def _aims(cells: Sequence[Cell], results: Results) -> str:
    head = (
        "cell",
        "p90 TTFT, times better than `cache_aware` of sglang-router 0.3.2",
        "p90 TTFT against the best other policy",
        "mean TTFT against `oracle_greedy`",
        "hit rate against `oracle_pooled`",
        "end-to-end mean against that `cache_aware`",
        f"p90 TTFT after {LEARNED_AFTER} requests against constants given",
    )
    rows = []
    for cell in cells:
        found = results[cell.name]
        ours = found[FLAGSHIP]
        aim = _OF_OLD.get(cell.name)
        old = found[OLD].over(ours, "ttft_p90")
        rival = _best_other(found)
        near = 1.0 if cell.load > 0.9 else 1.1
        rows.append(
            (
                cell.title,
                _times(old, ".2f") + (f", aim {aim:g}: {_met(old.mean >= aim)}" if aim else ""),
                _judged(ours["ttft_p90"].mean / found[rival]["ttft_p90"].mean, near) + f" (`{rival}`)",
                _judged(ours["ttft_mean"].mean / found[GREEDY]["ttft_mean"].mean, 1.1),
                _judged(ours["hit_rate"].mean / found[POOLED]["hit_rate"].mean, 0.91, is_least=True),
                _judged(ours["e2e_mean"].mean / found[OLD]["e2e_mean"].mean, 1.0),
                _judged(ours["ttft_p90_learned"].mean / found[GIVEN]["ttft_p90_learned"].mean, 1.05),
            )
        )
    return _table(head, rows)


def _best_other(found: Mapping[str, Result]) -> str:
    others = [entrant.label for entrant in ENTRANTS if not entrant.is_yardstick and entrant.label != FLAGSHIP]
    return min(set(others) & set(found), key=lambda label: found[label]["ttft_p90"].mean)


def _judged(ratio: float, aim: float, *, is_least: bool = False) -> str:
    is_met = round(ratio, 2) >= aim if is_least else round(ratio, 2) <= aim
    return f"{ratio:.2f}" if is_met else f"{ratio:.2f} **missed** (aim {aim:g})"


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _times(spread: Spread, form: str) -> str:
    return f"{spread.mean:{form}} ({spread.low:{form}}-{spread.high:{form}})"


# --- figures ---


def _ordered(cells: Sequence[Cell], results: Results) -> list[Entrant]:
    """Return who took part, policies before yardsticks, each from the best to the worst p90 TTFT over their cells."""

    def rank(entrant: Entrant) -> tuple[bool, float]:
        founds = [results[cell.name] for cell in cells if entrant.label in results[cell.name]]
        logs = [math.log(found[entrant.label].over(found[FLAGSHIP], "ttft_p90").mean) for found in founds]
        return entrant.is_yardstick, sum(logs) / len(logs)

    present = [entrant for entrant in ENTRANTS if any(entrant.label in results[cell.name] for cell in cells)]
    return sorted(present, key=rank)


def _pictures(stem: str, cells: Sequence[Cell], results: Results) -> str:
    entrants = _ordered(cells, results)
    titles = [cell.title for cell in cells]
    parts = []
    for suffix, figure, unit, what in (
        ("ttft", "ttft_p90", "s", "90 of 100 requests had their first token within this time (logarithmic)"),
        ("hits", "hit_rate", "share", "Share of prompt tokens that came from the engines' caches"),
    ):
        rows = [Row(entrant.label, _kind(entrant), _values(entrant, figure, cells, results)) for entrant in entrants]
        name = f"{stem}-{suffix}.svg"
        drawn = dot_plot(titles, rows, unit=unit, what=what, is_log=unit == "s")
        (FOLDER / name).write_text(drawn)
        parts.append(f"![{what}]({name})\n\n*{what}; lines from the least to the most of {SEEDS} runs.*\n")
    return "\n".join(parts)


def _values(entrant: Entrant, figure: str, cells: Sequence[Cell], results: Results) -> list[Spread | None]:
    found = [results[cell.name].get(entrant.label) for cell in cells]
    return [None if result is None else result[figure] for result in found]


def _kind(entrant: Entrant) -> str:
    if entrant.is_yardstick:
        return "known"
    return {FLAGSHIP: "ours", OLD: "old"}.get(entrant.label, "other")


def _figures(cells: Sequence[Cell], results: Results) -> str:
    return "".join(f"\n### {cell.title}\n\n{''.join(_cell(cell, results[cell.name]))}" for cell in cells)


def _cell(cell: Cell, found: Mapping[str, Result]) -> Iterator[str]:
    yield f"{cell.rate:g} {'sessions start' if cell.is_closed_loop else 'requests'} a second.\n\n"
    head = ("", "p90 TTFT, s", "mean TTFT, s", "p99 TTFT, s", "hit rate", "end to end, s", "busiest / mean")
    rows = []
    for entrant in _ordered([cell], {cell.name: found}):
        result = found[entrant.label]
        label = f"*{entrant.label}*" if entrant.is_yardstick else f"`{entrant.label}`"
        rows.append(
            (
                f"**{label}**" if entrant.label == FLAGSHIP else label,
                _seconds(result["ttft_p90"]),
                _seconds(result["ttft_mean"]),
                _seconds(result["ttft_p99"]),
                f"{result['hit_rate'].mean:.1%}",
                _seconds(result["e2e_mean"]),
                f"{result['imbalance'].mean:.2f}",
            )
        )
    yield _table(head, rows)
    for label, result in found.items():
        if failed := sum(run["failed"] for run in result.runs):
            yield f"\n{label}: {failed:g} requests failed.\n"
        for fault, count in result.faults.items():
            yield f"\n{label}: {count} faults ({fault}).\n"


def _seconds(spread: Spread) -> str:
    return f"{_short(spread.mean)} ({_short(spread.low)}-{_short(spread.high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
