"""`cache_aware` seen through HTTP: a conversation stays where its prefix is, and moves when that engine dies."""

from __future__ import annotations

from .support import chat, running_router, until

QUICK_CHECKS = {"interval_s": 0.05, "failure_threshold": 1}


def conversation(number):
    return f"Conversation {number}. " + f"Some words only {number} has said. " * 60


async def ask(router, prompt):
    """Return who answered, and how many prompt tokens of how many came from its cache."""
    async with router.post(body=chat(prompt)) as response:
        assert response.status == 200
        usage = (await response.json())["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return response.headers["x-simulated-engine"], cached / usage["prompt_tokens"]


async def test_a_conversation_stays_on_its_engine_and_finds_its_cache(simulated_engines):
    async with simulated_engines(3) as engines, running_router(engines, policy="cache_aware") as router:
        homes = {}
        for number in range(6):
            homes[number], cached = await ask(router, conversation(number))
            assert cached < 0.1
        assert set(homes.values()) == {"a", "b", "c"}
        for turn in range(3):
            for number, home in homes.items():
                engine, cached = await ask(router, conversation(number) + "And then? " * turn)
                assert engine == home
                assert cached > 0.8
        await router.settled(24)
        assert all(outcome.cached_tokens > 0 for outcome in router.record.outcomes[6:])
        reasons = {s.labels["reason"] for s in (await router.metrics())["router_core_policy_decisions_total"]}
        assert len(reasons) > 1  # the policy says why


async def test_an_engines_conversations_move_when_it_dies_and_it_gets_new_ones_when_it_is_back(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy="cache_aware", health=QUICK_CHECKS) as router,
    ):
        homes = {number: (await ask(router, conversation(number)))[0] for number in range(6)}
        assert set(homes.values()) == {"a", "b"}
        dying, survivor = engines
        orphans = [number for number, home in homes.items() if home == dying.name]

        await dying.stop()
        for number in orphans:
            assert (await ask(router, conversation(number)))[0] == survivor.name  # noticed yet or not
        await until(lambda: len(router.server.pool.candidates()) == 1, "one candidate")
        for number in homes:
            engine, cached = await ask(router, conversation(number))
            assert engine == survivor.name
            assert cached > 0.8

        await dying.start()
        await until(lambda: len(router.server.pool.candidates()) == 2, "two candidates")
        newcomers = [(await ask(router, conversation(100 + number)))[0] for number in range(6)]
        assert set(newcomers) == {dying.name, survivor.name}
        await until(lambda: not any(map(any, router.load())))
        assert len(router.record.completed) == len(router.record.selected)
