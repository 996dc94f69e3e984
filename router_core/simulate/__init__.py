"""Replays traces through simulated engines with the policies the router runs. What a policy's author imports is here.

    scenario = Scenario(read_trace(Path("trace.jsonl.gz")), FleetPlan.uniform(4), rate=3.4)
    result = compare(scenario, ["cache_aware", "round_robin"])
    assert result["cache_aware"].mean("ttft_p90") < result["round_robin"].mean("ttft_p90")

A trace is what is replayed; a scenario says how fast, and before which fleet; a contender is a policy that takes part.
"""

from router_core.simulate.comparison import Comparison, compare, simulate
from router_core.simulate.contender import Contender
from router_core.simulate.fleet_plan import EnginePlan, Failure, FleetPlan
from router_core.simulate.plugin import Plugin
from router_core.simulate.record import RequestRecord, RunRecord
from router_core.simulate.saturation import saturation_rate
from router_core.simulate.scenario import Scenario
from router_core.simulate.summary import Slo, Spread, Summary, summarise
from router_core.simulate.synthetic import synthetic
from router_core.simulate.trace import Trace, TraceRequest
from router_core.simulate.trace_file import read_trace, write_trace

__all__ = [
    "Comparison",
    "Contender",
    "EnginePlan",
    "Failure",
    "FleetPlan",
    "Plugin",
    "RequestRecord",
    "RunRecord",
    "Scenario",
    "Slo",
    "Spread",
    "Summary",
    "Trace",
    "TraceRequest",
    "compare",
    "read_trace",
    "saturation_rate",
    "simulate",
    "summarise",
    "synthetic",
    "write_trace",
]
