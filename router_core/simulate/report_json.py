"""The report for programs."""

from __future__ import annotations

from typing import Any

from router_core.simulate.comparison import Comparison


def json_report(comparison: Comparison) -> dict[str, Any]:  # Any: JSON
    """Return scenario and figures; of each figure the mean, least and most, and the value of each run."""
    scenario = comparison.scenario
    trace = scenario.trace
    return {
        "trace": {
            "name": trace.name,
            "requests": len(trace.requests),
            "sessions": len(trace.sessions),
            "is_closed_loop": trace.is_closed_loop,
            "block_tokens": trace.block_tokens,
            "reuse": trace.reuse,
        },
        "rate": scenario.start_rate,
        "engines": [
            {"role": engine.role.value, "cache_tokens": engine.constants.cache_tokens}
            for engine in scenario.fleet.engines
        ],
        "routers": scenario.routers,
        "seeds": len(comparison.records[0]),
        "warm_up": comparison.warm_up,
        "slo": {"ttft_s": comparison.slo.ttft_s, "inter_token_s": comparison.slo.inter_token_s},
        "policies": [
            {
                "policy": summary.policy,
                "figures": {
                    name: {
                        "mean": spread.mean,
                        "low": spread.low,
                        "high": spread.high,
                        "runs": [run[name] for run in summary.runs],
                    }
                    for name, spread in summary.figures.items()
                },
                "faults": dict(summary.faults),
            }
            for summary in comparison.summaries
        ],
    }
