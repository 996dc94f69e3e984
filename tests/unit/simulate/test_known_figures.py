"""Figures measured elsewhere on public traces come out again; needs the traces, named by LLM_TRACES."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from router_core.simulate import FleetPlan, Scenario, read_trace, simulate, summarise

TRACES = os.environ.get("LLM_TRACES")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TRACES, reason="LLM_TRACES names no folder with traces"),
]


def p90(name, policy, *, workers, cache_tokens, rate):
    trace = read_trace(Path(str(TRACES)) / f"{name}.jsonl.gz")
    scenario = Scenario(trace, FleetPlan.uniform(workers, cache_tokens=cache_tokens), rate=rate)
    return summarise([simulate(scenario, policy)]).mean("ttft_p90")


@pytest.mark.parametrize(
    ("policy", "expected_s"),
    [
        ("power_of_two", 9.1),
        ("cache_aware:{compat: sglang-0.3.2}", 6.6),
        ("oracle_greedy", 3.0),
        ("oracle_pooled", 2.4),
    ],
)
def test_a_conversation_trace_at_80_percent(policy, expected_s):
    measured = p90("mooncake_conversation", policy, workers=4, cache_tokens=1_600_000, rate=3.42)
    assert measured == pytest.approx(expected_s, rel=0.15)


@pytest.mark.parametrize(("policy", "expected_s"), [("oracle_greedy", 1.23), ("oracle_pooled", 0.63)])
def test_an_agent_trace_at_80_percent(policy, expected_s):
    assert p90("claude_code_a", policy, workers=4, cache_tokens=1_600_000, rate=0.0376) == pytest.approx(
        expected_s, rel=0.1
    )


@pytest.mark.parametrize(("policy", "expected_s"), [("random", 0.53), ("power_of_two", 0.28), ("oracle_greedy", 0.173)])
def test_short_prompts_at_95_percent(policy, expected_s):
    assert p90("servegen_mid", policy, workers=4, cache_tokens=400_000, rate=262) == pytest.approx(expected_s, rel=0.15)


@pytest.mark.load
@pytest.mark.parametrize("policy", ["round_robin", "power_of_two"])
def test_an_hour_of_traffic_on_eight_workers_takes_seconds(policy):
    trace = read_trace(Path(str(TRACES)) / "mooncake_conversation.jsonl.gz")
    began = time.process_time()
    simulate(Scenario(trace, FleetPlan.uniform(8, cache_tokens=1_600_000), rate=8.0), policy)
    assert time.process_time() - began < 10
