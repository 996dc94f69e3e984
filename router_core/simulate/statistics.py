"""What a trace is like: lengths, rates, how much of its prompts could be reused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from router_core.simulate.summary import percentile
from router_core.simulate.trace import Trace

_SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def statistics(trace: Trace) -> dict[str, Any]:  # Any: JSON
    """Return a trace's figures; times in seconds, lengths in tokens."""
    requests = trace.requests
    times = [request.at_s for request in requests]
    gaps = [after - before for before, after in pairwise(session[0].at_s for session in trace.sessions)]
    mean_gap = sum(gaps) / len(gaps) if gaps else 0.0
    variance = sum((gap - mean_gap) ** 2 for gap in gaps) / len(gaps) if gaps else 0.0
    counts = trace.block_counts
    figures: dict[str, Any] = {
        "name": trace.name,
        "requests": len(requests),
        "block_tokens": trace.block_tokens,
        "is_closed_loop": trace.is_closed_loop,
        "sessions": len({request.session for request in requests if request.session is not None}),
        "users": len({request.user for request in requests if request.user is not None}),
        "span_s": times[-1] - times[0],
        "start_rate": trace.start_rate,
        "burstiness": variance**0.5 / mean_gap if mean_gap else 0.0,
        "input_tokens": _lengths([request.prompt_tokens for request in requests]),
        "output_tokens": _lengths([request.output_tokens for request in requests]),
        "unique_blocks": len(counts),
        "hottest_block_share": max(counts.values(), default=0) / len(requests),
        "infinite_cache_hit_rate": trace.reuse,
    }
    if trace.is_closed_loop:
        turns = sorted(len(session) for session in trace.sessions)
        figures["turns"] = {"mean": sum(turns) / len(turns), "p50": percentile(turns, 0.5), "max": turns[-1]}
        think = sorted(request.think_s for session in trace.sessions for request in session[1:])
        figures["think_s"] = {name: percentile(think, share) for name, share in _SHARES}
    return figures


def describe(trace: Trace) -> str:
    """Return the same for people."""
    figures = statistics(trace)
    start = "sessions" if trace.is_closed_loop else "requests"
    rows = [
        ("requests", f"{figures['requests']:,}"),
        ("span", f"{figures['span_s']:,.0f} s"),
        ("starts", f"{figures['start_rate']:.4g} {start}/s, gaps vary by {figures['burstiness']:.2f} of their mean"),
        ("input tokens", _in_words(figures["input_tokens"])),
        ("output tokens", _in_words(figures["output_tokens"])),
        ("blocks", f"{figures['unique_blocks']:,} different ones of {trace.block_tokens} tokens"),
        ("hottest block", f"in {figures['hottest_block_share'] * 100:.1f} % of requests"),
        ("reuse", f"{figures['infinite_cache_hit_rate'] * 100:.1f} % of prompt tokens hit a cache without limits"),
    ]
    if trace.is_closed_loop:
        turns, think = figures["turns"], figures["think_s"]
        rows.append(("sessions", f"{len(trace.sessions):,}, {turns['mean']:.1f} turns each, {turns['max']} at most"))
        rows.append(("think time", ", ".join(f"{name} {value:.1f} s" for name, value in think.items())))
    width = max(len(name) for name, _ in rows)
    return "\n".join([trace.name, *(f"  {name.ljust(width)}  {value}" for name, value in rows)])


def _lengths(values: list[int]) -> dict[str, float]:
    values.sort()
    spread = {name: percentile(values, share) for name, share in _SHARES}
    return {"mean": sum(values) / len(values), **spread, "max": values[-1], "sum": sum(values)}


def _in_words(lengths: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in lengths.items() if name != "sum")
