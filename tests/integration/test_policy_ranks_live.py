"""Policies rank over HTTP as they do in the simulator: the same sessions, the same engines, at the same load."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from router_core.engine_model.timing import EngineConstants
from router_core.simulate import FleetPlan, Scenario, compare, synthetic
from router_core.simulate.prompt import TracePrompt

from .support import running_router

POLICIES = ("predicted_latency", "cache_aware", "least_loaded", "random")
ENGINES = 8
SESSIONS_PER_S = 6.0
SLOW = EngineConstants(step_s=0.025, prefill_token_s=0.4e-3, cache_tokens=16_000)
"""So slow that this process, with all engines in it, is waiting nearly all the time."""

CLEARLY = 1.5
"""How many times longer a mean wait must be in the simulator for the order to be expected of a busy machine, too."""


def small_trace():
    return synthetic(
        "sessions", requests=180, turns=5, think_s=0.5, system_tokens=256, turn_tokens=500, output_tokens=6, spread=0.8
    )


def simulated_s(trace):
    """Return the mean time to first token with each policy in the simulator."""
    scenario = Scenario(trace, FleetPlan.uniform(ENGINES, SLOW), rate=SESSIONS_PER_S)
    result = compare(scenario, POLICIES, warm_up=0.0)
    return {policy: result[policy].mean("ttft_mean") for policy in POLICIES}


async def live_s(simulated_engines, policy, trace):
    """Return the mean time to first token over HTTP."""
    numbers = itertools.count()
    stretch = trace.start_rate / SESSIONS_PER_S
    waits = []

    async def live(router, session):
        await asyncio.sleep(session[0].at_s * stretch)
        for turn, request in enumerate(session):
            if turn:
                await asyncio.sleep(request.think_s)
            waits.append(await first_token_s(router, trace, request, next(numbers)))

    async with (
        simulated_engines(ENGINES, constants=SLOW) as engines,
        running_router(engines, policy=policy) as router,
        asyncio.TaskGroup() as clients,
    ):
        for session in trace.sessions:
            clients.create_task(live(router, session))
    assert len(waits) == len(trace.requests)
    return sum(waits) / len(waits)


async def first_token_s(router, trace, request, number):
    """Ask, read the whole stream, and return how long its first token took."""
    body = {
        "model": "simulated-model",
        "prompt": TracePrompt(request, trace.block_tokens, number).text,
        "max_tokens": request.output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    clock = asyncio.get_running_loop().time
    asked_s = clock()
    async with router.post("/v1/completions", body=body, headers={"x-session-id": request.session}) as response:
        assert response.status == 200, await response.text()
        first = await response.content.readline()
        took_s = clock() - asked_s
        assert json.loads(first.removeprefix(b"data: "))["choices"]
        await response.read()
    return took_s


@pytest.mark.slow
async def test_policies_rank_over_http_as_in_the_simulator(simulated_engines):
    trace = small_trace()
    simulated = simulated_s(trace)
    measured = await asyncio.gather(*(live_s(simulated_engines, policy, trace) for policy in POLICIES))
    live = dict(zip(POLICIES, measured, strict=True))
    clear = [(a, b) for a, b in itertools.permutations(POLICIES, 2) if simulated[b] > CLEARLY * simulated[a]]
    assert {b for _, b in clear} >= {"least_loaded", "random"}, simulated
    assert [(a, b) for a, b in clear if not live[a] < live[b]] == [], (simulated, live)
    print(f"\nsimulated {simulated}\nlive {live}")
