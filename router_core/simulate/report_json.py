"""The report for programs."""

from __future__ import annotations

import math
from typing import Any

from router_core.simulate.comparison import Comparison


def json_report(comparison: Comparison) -> dict[str, Any]:  # Any: JSON
    """Return scenario and figures; of each figure the mean, least and most, and the value of each run.

    None, `null` in JSON, stands where nothing was there to measure, such as times where no request was answered.
    """
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
                        "mean": _or_null(spread.mean),
                        "low": _or_null(spread.low),
                        "high": _or_null(spread.high),
                        "runs": [_or_null(run[name]) for run in summary.runs],
                    }
                    for name, spread in summary.figures.items()
                },
                "requests": summary.requests,
                "failures": dict(summary.failures),
                "faults": dict(summary.faults),
            }
            for summary in comparison.summaries
        ],
    }


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value
