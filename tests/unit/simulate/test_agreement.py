"""The simulated engines over HTTP run the simulator's model: on the same trace they give the same times."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from router_core.engine_model.prefix_cache import PrefixCache
from router_core.engine_model.presets import H100_8B
from router_core.engine_model.timing import EngineConstants
from router_core.simulate import FleetPlan, Scenario, simulate, synthetic
from router_core.testing.engine_steps import StepLoop


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__()
        self._virtual_s = 0.0
        select = self._selector.select

        def skip(timeout=None):
            if timeout:
                self._virtual_s += timeout
            return select(0)

        self._selector.select = skip

    def time(self):
        return self._virtual_s


@dataclass
class Pace:
    constants: EngineConstants
    ttft_s: float | None = None
    token_interval_s: float | None = None


def replayed(trace, record, constants):
    """Return for each request, in order of arrival, when the engines of the HTTP fleet gave first and last token."""

    async def one(loop, engine, request, arrived_s):
        await asyncio.sleep(arrived_s)
        times = []
        blocks = trace.full_blocks(request)
        sequence = engine.submit(
            request.prompt_tokens, blocks, request.output_tokens, lambda _: times.append(loop.time())
        )
        await sequence.done
        return times[0], times[-1], len(times), sequence.cached_tokens

    async def all_of_them():
        loop = asyncio.get_running_loop()
        caches = [
            PrefixCache(constants.cache_tokens // trace.block_tokens, trace.block_tokens) for _ in range(record.workers)
        ]
        engines = [StepLoop(Pace(constants), cache) for cache in caches]
        return await asyncio.gather(
            *(one(loop, engines[each.worker], trace.requests[each.index], each.arrived_s) for each in record.requests)
        )

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(all_of_them())


@pytest.mark.parametrize("cache_tokens", [30_000, 400_000])
@pytest.mark.parametrize("workload", ["shared_prefixes", "bursts", "rl_groups"])
def test_simulator_and_http_engines_take_the_same_time(workload, cache_tokens):
    trace = synthetic(workload, requests=150, rate=6, output_tokens=40, spread=0.4)
    constants = EngineConstants(
        step_s=H100_8B.step_s,
        prefill_token_s=3e-4,
        prefill_pair_s=1e-8,
        decode_context_token_s=1e-6,
        decode_sequence_s=1e-4,
        step_token_budget=2048,
        max_running=12,
        cache_tokens=cache_tokens,
    )
    # Seed 0 would let samples of one group come at the same moment, in an order that timers do not keep.
    record = simulate(Scenario(trace, FleetPlan.uniform(2, constants)), "round_robin", seed=1)
    live = replayed(trace, record, constants)
    assert [each[2] for each in live] == [each.output_tokens for each in record.requests]
    assert [each[3] for each in live] == [each.cached_tokens for each in record.requests]
    assert [each[0] for each in live] == pytest.approx([each.first_token_s for each in record.requests], abs=1e-6)
    assert [each[1] for each in live] == pytest.approx([each.ended_s for each in record.requests], abs=1e-6)
    assert max(each.ttft_s for each in record.requests) > 0.5  # there were queues
