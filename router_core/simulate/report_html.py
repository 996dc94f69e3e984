"""The report as one page that needs nothing else: a summary, plots, and every figure in tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from router_core.simulate.comparison import Comparison
from router_core.simulate.contender import YARDSTICKS
from router_core.simulate.fleet_plan import FleetPlan
from router_core.simulate.report_plots import kinds, plots
from router_core.simulate.report_style import STYLE
from router_core.simulate.report_text import failures_in_words, headline, is_best, shown
from router_core.simulate.summary import FIGURES, GROUPS, Figure, Summary
from router_core.simulate.svg import Scale, number

_BY_NAME = {figure.name: figure for figure in FIGURES}
_QUANTILES = ("p50", "p90", "p99")
_BESIDE = ("ttft_p90", "hit_rate", "goodput", "failed_share")
_LEAST_S = 1e-4


def html_report(comparison: Comparison) -> str:
    """Return the page."""
    return "".join(_page(comparison))


def _page(comparison: Comparison) -> Iterator[str]:
    summaries = comparison.summaries
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(headline(comparison))}</title><style>{STYLE}{_hiding(len(summaries))}</style></head><body>"
    policies = sum(not summary.is_yardstick for summary in summaries)
    yield f"<h1>{'Policies compared' if policies > 1 else 'A policy simulated'}</h1>"
    yield from _facts(comparison)
    for summary in summaries:
        if summary.failures:
            yield f'<p class="alarm"><strong>{escape(summary.policy)}:</strong> '
            yield f"{escape(failures_in_words(summary))}.</p>"
        for fault, count in summary.faults.items():
            yield f'<p class="alarm"><strong>{escape(summary.policy)}: {count} faults ({escape(fault)}).</strong> '
            yield "Its figures are partly those of the fallback.</p>"
    yield "<h2>Time to first token</h2>"
    yield from _glance(summaries)
    yield "<h2>Distributions and course</h2>"
    if len(summaries) > 1:
        yield from _legend(summaries)
    yield '<div class="plots">'
    yield from plots(comparison)
    yield "</div><h2>All figures</h2><p>"
    if len(comparison.records[0]) > 1:
        yield "Means of the runs; below them the least and the most. "
    if policies > 1:
        yield "Green: the best policy of a column"
        yield " among those that failed fewest requests. " if any(each.failures for each in summaries) else ". "
    yield "Decisions are timed in real time on the machine that simulated.</p>"
    yield '<div class="tables">'
    for group in GROUPS:
        yield f"<section><h3>{escape(group)}</h3>"
        yield from _table(summaries, [figure for figure in FIGURES if figure.group == group])
        yield "</section>"
    yield "</div><footer>Made by <code>router-core simulate</code>. Times are those of a model of engines. "
    yield "Nothing here was measured on one.</footer>"
    yield "</body></html>\n"


def _legend(summaries: Sequence[Summary]) -> Iterator[str]:
    yield '<ul class="key">'
    for at, (summary, kind) in enumerate(zip(summaries, kinds(summaries), strict=True)):
        stroke = f'<svg viewBox="0 0 36 12" aria-hidden="true"><path class="curve {kind}" d="M0 6H36"/></svg>'
        yield f'<li><label><input type="checkbox" id="show{at}" checked>{stroke} {escape(summary.policy)}</label></li>'
    yield "</ul>"


def _hiding(count: int) -> str:
    """Let the boxes of the legend hide curves, without a script."""
    return "".join(
        f"body:has(#show{at}:not(:checked)) .plots polyline:nth-of-type({at + 1}) {{ display: none; }}\n"
        for at in range(count)
    )


def _facts(comparison: Comparison) -> Iterator[str]:
    scenario, slo = comparison.scenario, comparison.slo
    trace, runs = scenario.trace, len(comparison.records[0])
    what = "sessions" if trace.is_closed_loop else "requests"
    prompt = sum(request.prompt_tokens for request in trace.requests) / len(trace.requests)
    output = sum(request.output_tokens for request in trace.requests) / len(trace.requests)
    facts = [
        ("trace", f"{trace.name}: {len(trace.requests):,} requests of {prompt:,.0f} tokens on average, {output:,.0f} "
         f"generated; {trace.reuse * 100:.0f} % of prompt tokens were seen before"),
        ("load", f"{scenario.start_rate:.4g} {what} start per second"),
        ("engines", _engines(scenario.fleet)),
    ]  # fmt: skip
    if scenario.fleet.failures:
        facts.append(("failures", ", ".join(_failures(scenario.fleet))))
    if scenario.routers > 1:
        facts.append(("routers", f"{scenario.routers} side by side, each with its own idea of the load"))
    each = " of each policy" if len(comparison.records) > 1 else ""
    facts += [
        ("runs", f"{runs}{each}; the first {comparison.warm_up * 100:g} % of arrivals are left out"),
        ("SLO", f"first token within {slo.ttft_s:g} s, {slo.inter_token_s * 1e3:g} ms a token"),
    ]
    facts += [
        ("yardstick", f"{kind} {text}")
        for kind, text in YARDSTICKS.items()
        if any(summary.is_yardstick and summary.policy == kind for summary in comparison.summaries)
    ]
    yield "<dl>"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    yield "</dl>"


def _engines(fleet: FleetPlan) -> str:
    alike = Counter((engine.role.value, engine.constants.cache_tokens) for engine in fleet.engines)
    kinds_of = (
        f"{count}{'' if role == 'regular' else f' {role}'} with {tokens:,} tokens of KV cache"
        + (" each" if count > 1 else "")
        for (role, tokens), count in alike.items()
    )
    return ", ".join(kinds_of)


def _failures(fleet: FleetPlan) -> Iterator[str]:
    for failure in fleet.failures:
        back = "for good" if failure.back_after_s is None else f"for {failure.back_after_s:g} s"
        yield f"worker {failure.worker} is down from {failure.at_s:g} s on {back}"


def _glance(summaries: Sequence[Summary]) -> Iterator[str]:
    """Return a row for each policy with the quantiles on one scale."""
    values = [
        max(_LEAST_S, spread)
        for summary in summaries
        for name in _QUANTILES
        for spread in (summary[f"ttft_{name}"].low, summary[f"ttft_{name}"].high)
        if not math.isnan(spread)
    ] or [_LEAST_S]
    scale = Scale(min(values), max(values), is_log=True)
    grid = "".join(f'<u style="left:{scale.place(tick) * 100:.2f}%"></u>' for tick in scale.ticks)
    yield "<p>Circle: half of the requests had their first token within that time (p50); diamond: nine of ten (p90); "
    yield "stroke: 99 of 100 (p99). The scale is logarithmic.</p>"
    yield '<div class="scroll"><table class="glance"><thead><tr><th>policy</th>'
    yield '<th class="rail"></th>'
    yield from (f"<th>{escape(_BY_NAME[name].title)}</th>" for name in _BESIDE)
    yield "</tr></thead><tbody>"
    for summary, kind in zip(summaries, kinds(summaries), strict=True):
        marks = bar = ""
        if not math.isnan(summary.mean("ttft_p50")):
            at = {name: scale.place(max(_LEAST_S, summary.mean(f"ttft_{name}"))) * 100 for name in _QUANTILES}
            marks = "".join(f'<b class="{name}" style="left:{place:.2f}%"></b>' for name, place in at.items())
            bar = f'<i style="left:{at["p50"]:.2f}%;width:{at["p99"] - at["p50"]:.2f}%"></i>'
        yield f'<tr><th scope="row">{escape(summary.policy)}</th>'
        yield f'<td class="rail"><div class="{kind}">{grid}{bar}{marks}</div></td>'
        yield from (_cell(_BY_NAME[name], summary, summaries, has_range=False) for name in _BESIDE)
        yield "</tr>"
    ticks = "".join(f'<span style="left:{scale.place(tick) * 100:.2f}%">{number(tick)}</span>' for tick in scale.ticks)
    yield f'</tbody><tfoot><tr><th>seconds</th><td class="rail"><div>{ticks}</div></td>'
    yield f'<td colspan="{len(_BESIDE)}"></td></tr></tfoot></table></div>'


def _table(summaries: Sequence[Summary], figures: Sequence[Figure]) -> Iterator[str]:
    yield '<div class="scroll"><table><thead><tr><th>policy</th>'
    yield from (f"<th>{escape(figure.title)}{', per s' if figure.unit == '1/s' else ''}</th>" for figure in figures)
    yield "</tr></thead><tbody>"
    for summary in summaries:
        yield f'<tr><th scope="row">{escape(summary.policy)}</th>'
        yield from (_cell(figure, summary, summaries, has_range=True) for figure in figures)
        yield "</tr>"
    yield "</tbody></table></div>"


def _cell(figure: Figure, summary: Summary, summaries: Sequence[Summary], *, has_range: bool) -> str:
    spread = summary[figure.name]
    mark = ' class="best"' if is_best(figure, summary, summaries) else ""
    span = ""
    if has_range and spread.low < spread.high:
        span = f"<small>{shown(figure, spread.low)} to {shown(figure, spread.high)}</small>"
    return f"<td{mark}>{shown(figure, spread.mean)}{span}</td>"
