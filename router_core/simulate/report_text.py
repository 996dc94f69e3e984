"""The report for a terminal: one line a policy, the best of each column marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from router_core.contract.worker import WorkerRole
from router_core.simulate.comparison import Comparison
from router_core.simulate.fleet_plan import FleetPlan
from router_core.simulate.record import FailureReason
from router_core.simulate.summary import FIGURES, Figure, Spread, Summary

_TABLES = (
    ("hit_rate", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "goodput", "failed_share"),
    ("e2e_mean", "e2e_p90", "inter_token_mean", "inter_token_p99", "request_rate", "output_rate"),
    ("imbalance", "queue_mean", "queue_max", "utilisation", "decision_us"),
)
_HEADS = {
    "hit_rate": "hit rate",
    "goodput": "in SLO",
    "failed_share": "failed",
    "e2e_mean": "E2E mean",
    "e2e_p90": "E2E p90",
    "inter_token_mean": "ITL mean",
    "inter_token_p99": "ITL p99",
    "request_rate": "req/s",
    "output_rate": "tokens/s",
    "imbalance": "imbalance",
    "queue_mean": "queue mean",
    "queue_max": "queue max",
    "utilisation": "busy",
    "decision_us": "decision",
}
_BY_NAME = {figure.name: figure for figure in FIGURES}
_REASONS: Mapping[str, str] = MappingProxyType(
    {
        FailureReason.NO_WORKER: "no worker was chosen, or none was alive",
        FailureReason.WORKER_DIED: "the worker died",
        FailureReason.TOO_LONG: "longer than the engine's whole KV cache, prompt and output together",
    }
)


def text_report(comparison: Comparison) -> str:
    """Return the tables."""
    return "\n".join(_lines(comparison))


def headline(comparison: Comparison) -> str:
    """Return what was simulated, in a line."""
    scenario = comparison.scenario
    trace = scenario.trace
    seeds = len(comparison.records[0])
    what = "sessions" if trace.is_closed_loop else "requests"
    routers = f", {scenario.routers} routers" if scenario.routers > 1 else ""
    return (
        f"{trace.name}: {len(trace.requests):,} requests, {scenario.start_rate:.4g} {what}/s, "
        f"{_fleet(scenario.fleet)}{routers}, {seeds} run{'s' if seeds > 1 else ''} each"
    )


def _fleet(fleet: FleetPlan) -> str:
    count = len(fleet.engines)
    if not fleet.has_pairs:
        return f"{count} engine{'s' if count > 1 else ''}"
    prefill = sum(engine.role is WorkerRole.PREFILL for engine in fleet.engines)
    return f"{prefill} prefill and {count - prefill} decode engines"


def shown(figure: Figure, value: float) -> str:
    """Return a value as people read it, to three digits; "none" for what was not there to measure."""
    if math.isnan(value):
        return "none"
    if figure.unit == "share":
        return f"{value * 100:.1f} %"
    if figure.unit == "s":
        return f"{_three_digits(value * 1e3)} ms" if value < 0.9995 else f"{_three_digits(value)} s"
    if figure.unit == "us":
        return f"{value:.0f} us"
    return f"{value:.0f}" if value == int(value) and value < 1000 else _three_digits(value)


def _three_digits(value: float) -> str:
    value = float(f"{value:.3g}")
    if value < 0.0005:
        return "0"
    return f"{value:,.{min(3, max(0, 2 - math.floor(math.log10(value))))}f}"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield headline(comparison)
    has_spread = len(comparison.records[0]) > 1
    for names in _TABLES:
        yield ""
        figures = [_BY_NAME[name] for name in names]
        rows = [["policy", *(_HEADS.get(figure.name, figure.title) for figure in figures)]]
        for summary in comparison.summaries:
            cells = [
                _cell(figure, summary[figure.name], is_best=is_best(figure, summary, comparison.summaries))
                for figure in figures
            ]
            rows.append([summary.policy, *cells])
            if has_spread:
                rows.append(["", *(_range(figure, summary[figure.name]) for figure in figures)])
        yield from _table(rows)
    slo = comparison.slo
    yield ""
    best = "* best of the policies"
    if any(summary.failures for summary in comparison.summaries):
        best += " that failed fewest requests"
    notes = [f"{best}; the first {comparison.warm_up * 100:g} % of arrivals are left out"]
    if has_spread:
        notes.append("second lines: least and most of the runs")
    notes.append(f"SLO: TTFT up to {slo.ttft_s:g} s, {slo.inter_token_s * 1e3:g} ms a token")
    yield "; ".join(notes)
    for summary in comparison.summaries:
        if summary.failures:
            yield f"! {summary.policy}: {failures_in_words(summary)}"
        for kind, count in summary.faults.items():
            yield f"! {summary.policy}: {count} faults ({kind}); the figures are partly those of the fallback"


def _cell(figure: Figure, spread: Spread, *, is_best: bool) -> str:
    return shown(figure, spread.mean) + ("*" if is_best else " ")


def _range(figure: Figure, spread: Spread) -> str:
    return "" if not spread.low < spread.high else f"{shown(figure, spread.low)}-{shown(figure, spread.high)} "


def failures_in_words(summary: Summary) -> str:
    """Return how many of a policy's requests failed in all runs together, and why."""
    failed = sum(summary.failures.values())
    reasons = "; ".join(f"{_REASONS[reason]} ({count:,})" for reason, count in summary.failures.items())
    share = failed / summary.requests * 100
    return f"{failed:,} of {summary.requests:,} requests failed ({share:.1f} %): {reasons}"


def is_best(figure: Figure, summary: Summary, summaries: Sequence[Summary]) -> bool:
    """Whether no policy has a better mean of a figure; never for yardsticks, or where all are equal.

    Who failed more requests than another policy is no rival but in failing itself: the rest of them is easier to serve.
    """
    rivals = [each for each in summaries if not each.is_yardstick]
    if not figure.name.startswith("failed"):
        fewest = min((each.mean("failed_share") for each in rivals), default=0.0)
        rivals = [each for each in rivals if each.mean("failed_share") == fewest]
    if figure.is_better_low is None or summary not in rivals:
        return False
    values = [value for each in rivals if not math.isnan(value := each[figure.name].mean)]
    if len(values) < 2 or min(values) == max(values):
        return False
    return summary[figure.name].mean == (min(values) if figure.is_better_low else max(values))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = row
        yield "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        ).rstrip()
