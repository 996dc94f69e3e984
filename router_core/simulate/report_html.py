"""The report as one page that needs nothing else: tables, plots as SVG, light and dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from router_core.contract.request import OutcomeStatus
from router_core.simulate.comparison import Comparison
from router_core.simulate.contender import YARDSTICKS
from router_core.simulate.record import RunRecord
from router_core.simulate.report_text import headline, is_best, shown
from router_core.simulate.summary import FIGURES, Spread, Summary, counted, imbalance
from router_core.simulate.svg import Line, plot

COLOURS = 10
_POINTS = 120
_LEAST_S = 1e-3

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --paper: #fff; --rule: #dfe4ea; --mark: #e8f3ec;
 --c0: #2563a8; --c1: #c2571a; --c2: #1f8a5b; --c3: #8b46b0; --c4: #b3293d; --c5: #7a6a12; --c6: #0f8a96; --c7: #b0418a;
 --c8: #55606e; --c9: #8c5a33; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --paper: #14181e; --rule: #2c343e;
 --mark: #1d3327;
 --c0: #6ea8ea; --c1: #f0935a; --c2: #5cc796; --c3: #c08ae0; --c4: #ee7486; --c5: #cdbb55; --c6: #56c8d3;
 --c7: #e584c3; --c8: #a4afbd; --c9: #cf9c70; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 84rem; background: var(--paper); color: var(--ink);
 font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, figcaption { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; font-weight: normal; }
th:first-child, td:first-child { text-align: left; } thead th { color: var(--soft); }
td small { display: block; color: var(--soft); } td.best { background: var(--mark); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; } svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--rule); } .curve { fill: none; stroke-width: 2; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; }
.key i { display: inline-block; width: 1.4em; height: .25em; vertical-align: middle; margin-right: .4em; }
""" + "".join(f".c{n} {{ stroke: var(--c{n}); }} i.b{n} {{ background: var(--c{n}); }}\n" for n in range(COLOURS))


def html_report(comparison: Comparison) -> str:
    """Return the page."""
    return "".join(_page(comparison))


def _page(comparison: Comparison) -> Iterator[str]:
    title = escape(headline(comparison))
    slo, summaries = comparison.slo, comparison.summaries
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>Policies compared</h1><p>{title}. The first {comparison.warm_up * 100:g} % of arrivals are left out. "
    yield f"SLO: first token within {slo.ttft_s:g} s, {slo.inter_token_s * 1e3:g} ms a token. "
    yield "Small: least and most of the runs. Marked: the best policy of each column; yardsticks are no policies.</p>"
    for kind, text in YARDSTICKS.items():
        if any(summary.policy == kind for summary in summaries):
            yield f"<p><code>{kind}</code> {escape(text)}.</p>"
    for summary in summaries:
        for fault, count in summary.faults.items():
            yield f"<p><strong>{escape(summary.policy)}: {count} faults ({escape(fault)}).</strong></p>"
    yield "<h2>Plots</h2>"
    yield '<ul class="key">'
    for number, summary in enumerate(summaries):
        yield f'<li><i class="b{number % COLOURS}"></i>{escape(summary.policy)}</li>'
    yield '</ul><div class="plots">'
    yield from _plots(comparison)
    yield "</div><h2>Figures</h2>"
    for start in range(0, len(FIGURES), 8):
        yield from _table(summaries, start)
    yield "</body></html>\n"


def _plots(comparison: Comparison) -> Iterator[str]:
    runs = [records[0] for records in comparison.records]
    requests = [
        [one for one in counted(run, comparison.warm_up) if one.status is OutcomeStatus.SUCCESS] for run in runs
    ]
    ttfts = [sorted(one.ttft_s for one in each) for each in requests]
    e2es = [sorted(one.duration_s for one in each) for each in requests]
    gaps = [sorted(gap * 1e3 for one in each if (gap := one.inter_token_s) is not None) for each in requests]
    yield _figure(
        plot(_shares(runs, ttfts), x="time to first token, s", y="share of requests, %", is_x_log=True),
        "Time to first token: how many requests had it within which time",
    )
    yield _figure(
        plot(_shares(runs, e2es), x="end to end, s", y="share of requests, %", is_x_log=True),
        "End to end: how many requests were over within which time",
    )
    yield _figure(
        plot(_shares(runs, gaps), x="mean time between tokens, ms", y="share of requests, %", is_x_log=True),
        "Time between tokens: how many requests had it on average",
    )
    waiting = [
        Line(run.policy, number % COLOURS, [(sample.at_s, float(sum(sample.waiting))) for sample in run.samples])
        for number, run in enumerate(runs)
    ]
    yield _figure(plot(waiting, x="time, s", y="requests waiting"), "Requests waiting in all engines together")
    inside = [Line(run.policy, number % COLOURS, _uneven(run)) for number, run in enumerate(runs)]
    yield _figure(
        plot(inside, x="time, s", y="busiest / mean"), "Imbalance: requests in the busiest engine over the mean"
    )
    hits = [Line(run.policy, number % COLOURS, _hit_rates(run)) for number, run in enumerate(runs)]
    yield _figure(plot(hits, x="time, s", y="token hit rate, %"), "Token hit rate over time")


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}.</figcaption></figure>"


def _shares(runs: Sequence[RunRecord], values: Sequence[Sequence[float]]) -> list[Line]:
    """Return the cumulative distribution of each run's ordered values."""
    lines = []
    for number, (run, ordered) in enumerate(zip(runs, values, strict=True)):
        if not ordered:
            continue
        count = len(ordered)
        places = sorted({min(count - 1, place * count // _POINTS) for place in range(_POINTS + 1)})
        points = [(max(_LEAST_S, ordered[place]), (place + 1) / count * 100) for place in places]
        lines.append(Line(run.policy, number % COLOURS, points))
    return lines


def _uneven(run: RunRecord) -> list[tuple[float, float]]:
    points = []
    for sample in run.samples:
        ratio = imbalance(sample, run.roles)
        if ratio is not None:
            points.append((sample.at_s, ratio))
    return points


def _hit_rates(run: RunRecord) -> list[tuple[float, float]]:
    size = max(1, len(run.requests) // (_POINTS // 2))
    points = []
    for start in range(0, len(run.requests), size):
        group = run.requests[start : start + size]
        tokens = sum(one.prompt_tokens for one in group)
        points.append((group[0].arrived_s, sum(one.cached_tokens for one in group) / tokens * 100))
    return points


def _table(summaries: Sequence[Summary], start: int) -> Iterator[str]:
    figures = FIGURES[start : start + 8]
    yield '<div class="scroll"><table><thead><tr><th>policy</th>'
    yield from (f"<th>{escape(figure.title)}{', per s' if figure.unit == '1/s' else ''}</th>" for figure in figures)
    yield "</tr></thead><tbody>"
    for summary in summaries:
        yield f"<tr><td>{escape(summary.policy)}</td>"
        for figure in figures:
            spread: Spread = summary[figure.name]
            mark = ' class="best"' if is_best(figure, summary, summaries) else ""
            span = "" if spread.low == spread.high else f"{shown(figure, spread.low)} - {shown(figure, spread.high)}"
            yield f"<td{mark}>{shown(figure, spread.mean)}<small>{span}</small></td>"
        yield "</tr>"
    yield "</tbody></table></div>"
