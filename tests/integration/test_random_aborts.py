"""Clients that hang up at any moment leave nothing behind: one completion for each selection, and no load."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from .support import RawClient, chat, request_bytes, running_router, until

REQUESTS = 300
AT_ONCE = 50


async def visit(url, chance):
    """Send one request and read its answer, or hang up somewhere on the way; return where."""
    stream = chance.random() < 0.7
    body = chat("word " * chance.randrange(500), stream=stream)
    stops = ["after connecting", "in the head", "in the body", "after sending", "some turns later", "after the head"]
    stop = chance.choice(stops) if chance.random() < 1 / 3 else "nowhere"
    data = request_bytes(body)
    if stop == "nowhere":
        data = data.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    async with await RawClient.connect(url) as client:
        cuts = {"after connecting": 0, "in the head": 40, "in the body": len(data) - 5}
        client.writer.write(data[: cuts.get(stop, len(data))])
        if stop == "some turns later":
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
        if stop == "after the head":
            await client.read_head()
            if stream:
                for _ in range(chance.randrange(8)):
                    await client.read_until(b"\n\n")
        if stop == "nowhere":
            assert (await client.read_rest()).startswith(b"HTTP/1.1 200 ")
        if chance.random() < 0.5:
            client.hang_up()
        else:
            client.writer.close()
    return stop


@pytest.mark.parametrize("policy", ["cache_aware", "power_of_two"])
async def test_a_third_of_the_clients_hanging_up_leaves_nothing_behind(simulated_engines, policy):
    chance = random.Random(20)
    async with (
        simulated_engines(4, tokens=12) as engines,
        running_router(engines, policy={"name": policy, "seed": 1}) as router,
    ):
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(seed):
            async with gate:
                return await visit(router.url, random.Random(seed))

        stops = Counter(await asyncio.gather(*(one(chance.random()) for _ in range(REQUESTS))))
        assert REQUESTS / 4 < REQUESTS - stops["nowhere"] < REQUESTS / 2
        await until(router.is_settled, "no load, and a completion for each selection")
        for engine in engines:
            await engine.wait_idle()

        record = router.record
        metrics = await router.metrics()
        by_status = Counter()
        for sample in metrics["router_core_requests_total"]:
            by_status[sample.labels["status"]] += sample.value
        assert sum(by_status.values()) == len(record.completed) == len(record.selected)
        assert set(by_status) == {"success", "cancelled"}
        assert by_status["success"] >= stops["nowhere"]
        assert sum(engine.aborted for engine in engines) <= by_status["cancelled"]
        assert sum(engine.completed for engine in engines) >= by_status["success"]
        assert len({id(completion.request) for completion in record.completed}) == len(record.completed)
        assert await router.ask()  # and the router serves on
