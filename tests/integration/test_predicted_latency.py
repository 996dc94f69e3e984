"""`predicted_latency` seen through HTTP: prefixes are followed, and it learns from streams and from whole answers."""

from __future__ import annotations

import asyncio

from .support import chat, running_router


def conversation(number):
    return f"Conversation {number}. " + f"Some words only {number} has said. " * 60


async def ask(router, prompt, **fields):
    async with router.post(body=chat(prompt, **fields)) as response:
        assert response.status == 200
        await response.read()
        return response.headers["x-simulated-engine"]


async def test_a_conversation_stays_on_its_engine_and_its_cache_is_found(simulated_engines):
    async with simulated_engines(3) as engines, running_router(engines, policy="predicted_latency") as router:
        homes = {number: await ask(router, conversation(number)) for number in range(6)}
        for turn in range(3):
            for number, home in homes.items():
                assert await ask(router, conversation(number) + "And then? " * turn) == home
        await router.settled(24)
        assert all(outcome.cached_tokens > 0 for outcome in router.record.outcomes[6:])
        decisions = (await router.metrics())["router_core_policy_decisions_total"]
        reasons = {sample.labels["reason"] for sample in decisions}
        assert reasons == {"cache_miss", "cache_hit"}


async def test_a_burst_of_one_prompt_reaches_every_engine_and_faults_nowhere(simulated_engines):
    async with simulated_engines(3) as engines, running_router(engines, policy="predicted_latency") as router:
        streams = [ask(router, conversation(1), stream=True) for _ in range(60)]
        wholes = [ask(router, conversation(2)) for _ in range(60)]
        assert set(await asyncio.gather(*streams, *wholes)) == {"a", "b", "c"}
        await router.settled(120)
        reasons = {s.labels["reason"] for s in (await router.metrics())["router_core_policy_decisions_total"]}
        assert "fallback" not in reasons
