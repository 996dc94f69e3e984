"""What a report's plots show: from the records of all runs to curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from router_core.contract.request import OutcomeStatus
from router_core.simulate.comparison import Comparison
from router_core.simulate.record import RequestRecord, RunRecord, Sample
from router_core.simulate.report_style import curve_class
from router_core.simulate.summary import Summary, counted, imbalance
from router_core.simulate.svg import Line, plot

_POINTS = 120
_BINS = 40
_LEAST_S = 1e-4


def kinds(summaries: Sequence[Summary]) -> list[str]:
    """Return the class of each policy's curves in the style sheet."""
    found: list[str] = []
    for at, summary in enumerate(summaries):
        alike = sum(other.is_yardstick is summary.is_yardstick for other in summaries[:at])
        found.append(curve_class(alike, is_yardstick=summary.is_yardstick))
    return found


def plots(comparison: Comparison) -> Iterator[str]:
    """Return all figures of the page."""
    served = [
        [
            request
            for record in records
            for request in counted(record, comparison.warm_up)
            if request.status is OutcomeStatus.SUCCESS
        ]
        for records in comparison.records
    ]
    many = len(comparison.records[0]) > 1
    for of, x, title in (
        (_ttft_s, "time to first token, s", "Time to first token"),
        (_duration_s, "time from arrival to the last token, s", "End to end"),
        (_inter_token_ms, "mean time between tokens, ms", "Time between tokens"),
    ):
        lines = _distributions(comparison, served, of)
        yield _figure(
            plot(lines, x=x, y="share of requests, %", is_x_log=True, y_top=100), title, "all runs" if many else ""
        )
    firsts = [records[0] for records in comparison.records]
    outages = [
        (failure.at_s, float("inf") if failure.back_after_s is None else failure.at_s + failure.back_after_s)
        for failure in comparison.scenario.fleet.failures
    ]
    note = "; ".join(["first run"] * many + ["shaded while a worker is down"] * bool(outages))
    for figure_of, y, y_low, y_top, title in (
        (_waiting, "requests waiting", 0.0, None, "Requests waiting in all engines together"),
        (imbalance, "busiest engine / mean", 1.0, None, "Balance: requests in the busiest engine over the mean"),
    ):
        lines = [
            Line(run.policy, kind, _over_time(run, figure_of))
            for run, kind in zip(firsts, kinds(comparison.summaries), strict=True)
        ]
        yield _figure(plot(lines, x="time, s", y=y, y_low=y_low, y_top=y_top, spans=outages), title, note)
    lines = [
        Line(run.policy, kind, _hit_rates(run)) for run, kind in zip(firsts, kinds(comparison.summaries), strict=True)
    ]
    title = "Share of prompt tokens found in the engines' caches"
    yield _figure(plot(lines, x="time, s", y="token hit rate, %", y_top=100, spans=outages), title, note)


def _figure(drawing: str, title: str, note: str) -> str:
    return f"<figure>{drawing}<figcaption><b>{escape(title)}</b>{f' ({note})' if note else ''}</figcaption></figure>"


def _ttft_s(request: RequestRecord) -> float:
    return max(_LEAST_S, request.ttft_s)


def _duration_s(request: RequestRecord) -> float:
    return max(_LEAST_S, request.duration_s)


def _inter_token_ms(request: RequestRecord) -> float | None:
    gap_s = request.inter_token_s
    return None if gap_s is None else max(_LEAST_S, gap_s) * 1e3


def _distributions(
    comparison: Comparison,
    served: Sequence[Sequence[RequestRecord]],
    of: Callable[[RequestRecord], float | None],
) -> list[Line]:
    """Return how many of each policy's requests were within which value."""
    lines = []
    for summary, kind, requests in zip(comparison.summaries, kinds(comparison.summaries), served, strict=True):
        ordered = sorted(value for request in requests if (value := of(request)) is not None)
        count = len(ordered)
        places = sorted({min(count - 1, place * count // _POINTS) for place in range(_POINTS + 1)}) if count else []
        lines.append(Line(summary.policy, kind, [(ordered[place], (place + 1) / count * 100) for place in places]))
    return lines


def _waiting(sample: Sample, roles: object) -> float:  # noqa: ARG001  # as `imbalance` is called
    return float(sum(sample.waiting))


def _over_time(run: RunRecord, of: Callable[..., float | None]) -> list[tuple[float, float]]:
    """Return the means of short spans, from the first arrival to the last."""
    last_s = max((request.arrived_s for request in run.requests), default=0.0)
    samples = [sample for sample in run.samples if sample.at_s <= last_s]
    size = max(1, len(samples) // _BINS)
    points = []
    for start in range(0, len(samples), size):
        group = samples[start : start + size]
        values = [value for sample in group if (value := of(sample, run.roles)) is not None]
        if values:
            points.append((group[len(group) // 2].at_s, sum(values) / len(values)))
    return points


def _hit_rates(run: RunRecord) -> list[tuple[float, float]]:
    size = max(1, len(run.requests) // _BINS)
    points = []
    for start in range(0, len(run.requests), size):
        group = [one for one in run.requests[start : start + size] if one.first_token_s >= 0]
        if tokens := sum(one.prompt_tokens for one in group):
            points.append((group[0].arrived_s, sum(one.cached_tokens for one in group) / tokens * 100))
    return points
