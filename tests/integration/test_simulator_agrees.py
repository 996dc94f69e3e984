"""The simulator and a live fleet of simulated engines place a small trace alike and find the same caches."""

from __future__ import annotations

import pytest

from router_core.engine_model.prefix_cache import BLOCK_TOKENS
from router_core.simulate import FleetPlan, Scenario, Trace, TraceRequest, simulate
from router_core.simulate.prompt import TracePrompt

from .support import running_router


def small_trace():
    """Return prompts of full blocks that come one after the other: three prefixes, each used again and again."""
    requests = []
    for number in range(24):
        prefix = range(1000 * (number % 3), 1000 * (number % 3) + 40)
        blocks = (*prefix, *range(10_000 + 20 * number, 10_000 + 20 * number + number))
        requests.append(TraceRequest(number * 1.0, len(blocks) * BLOCK_TOKENS, 3, blocks))
    return Trace("small", BLOCK_TOKENS, tuple(requests))


@pytest.mark.parametrize("policy", ["round_robin", "cache_aware"])
async def test_a_trace_goes_to_the_same_workers_and_finds_the_same_caches(simulated_engines, policy):
    trace = small_trace()
    record = simulate(Scenario(trace, FleetPlan.uniform(3)), policy)
    async with simulated_engines(3) as engines, running_router(engines, policy=policy) as router:
        live = []
        for number, request in enumerate(trace.requests):
            prompt = TracePrompt(request, BLOCK_TOKENS, number).text
            body = {"model": "simulated-model", "prompt": prompt, "max_tokens": request.output_tokens}
            async with router.post("/v1/completions", body=body) as response:
                usage = (await response.json())["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            live.append((response.headers["x-simulated-engine"], usage["prompt_tokens"], cached))
    simulated = [("abc"[one.worker], one.prompt_tokens, one.cached_tokens) for one in record.requests]
    assert live == simulated
    assert sum(cached for _, _, cached in live) > 0
