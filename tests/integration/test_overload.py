"""More than is taken on: who waits, what the others are told, and that every place comes back whatever clients do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from .support import RawClient, chat, request_bytes, running_router, until

ENDLESS = {"max_tokens": 100_000, "ignore_eos": True}
KEYS = [
    {"name": "a", "key": "sk-a"},
    {"name": "b", "key": "sk-b", "max_concurrent_requests": 6},
    {"name": "c", "key": "sk-c", "max_priority": "high"},
]


def is_free(router):
    admission = router.server.gate.admission
    return admission.running == admission.waiting == 0 and router.is_settled()


async def test_over_the_cap_requests_wait_then_are_refused_and_a_place_that_is_freed_is_taken(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], admission={"max_concurrent_requests": 1, "queue_size": 1}) as router,
        await RawClient.connect(router.url) as running,
        await RawClient.connect(router.url) as waiting,
        await RawClient.connect(router.url) as late,
    ):
        admission = router.server.gate.admission
        running.send(chat(stream=True, **ENDLESS))
        await running.read_until(b"content")
        waiting.send()
        await until(lambda: admission.waiting == 1)
        late.send()
        status, headers = await late.read_head()
        assert (status, headers["retry-after"]) == (429, "1")
        assert b'"code":"queue_full"' in await late.read_until(b"}}")
        running.hang_up()
        assert (await waiting.read_head())[0] == 200
        await until(lambda: is_free(router))
        metrics = await router.metrics()
        results = {sample.labels["result"]: sample.value for sample in metrics["router_core_admission_requests_total"]}
        assert {result: times for result, times in results.items() if times} == {"admitted": 2, "queue_full": 1}
        assert metrics["router_core_admission_queue_length"][0].value == 0
        assert metrics["router_core_admission_requests_active"][0].value == 0
        assert metrics["router_core_admission_wait_seconds_count"][0].value >= 1


async def test_who_waits_too_long_is_answered_408_and_may_ask_again(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], admission={"max_concurrent_requests": 1, "queue_timeout_s": 0.05}) as router,
        await RawClient.connect(router.url) as running,
        await RawClient.connect(router.url) as waiting,
    ):
        running.send(chat(stream=True, **ENDLESS))
        await running.read_until(b"content")
        waiting.send()
        status, body = await waiting.read_answer()
        assert (status, b'"code":"queue_timeout"' in body) == (408, True)
        running.hang_up()
        await until(lambda: is_free(router))
        waiting.send()
        assert (await waiting.read_answer())[0] == 200


async def test_a_client_that_leaves_the_queue_is_never_sent_to_a_worker(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], admission={"max_concurrent_requests": 1}) as router,
        await RawClient.connect(router.url) as running,
        await RawClient.connect(router.url) as leaving,
    ):
        admission = router.server.gate.admission
        running.send(chat(stream=True, **ENDLESS))
        await running.read_until(b"content")
        leaving.send()
        await until(lambda: admission.waiting == 1)
        leaving.hang_up()
        await until(lambda: admission.waiting == 0)
        running.hang_up()
        await until(lambda: is_free(router))
        assert len(router.record.selected) == 1


async def test_probes_models_and_administration_are_never_held_up(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], admission={"max_concurrent_requests": 1, "queue_size": 0}) as router,
        await RawClient.connect(router.url) as running,
    ):
        running.send(chat(stream=True, **ENDLESS))
        await running.read_until(b"content")
        for path in ("/health", "/readiness", "/v1/models", "/workers", "/metrics"):
            async with router.get(path) as response:
                assert response.status == 200


async def test_a_place_is_held_through_a_retry_and_given_back_once(simulated_engine):
    async with (
        simulated_engine() as engine,
        simulated_engine() as dead,
        running_router([dead, engine], admission={"max_concurrent_requests": 1}) as router,
    ):
        await dead.__aexit__(None, None, None)
        for _ in range(4):
            assert await router.ask()
            assert is_free(router)


async def test_without_a_worker_everybody_who_waits_is_told_so(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], admission={"max_concurrent_requests": 1}) as router,
        await RawClient.connect(router.url) as running,
    ):
        admission = router.server.gate.admission
        running.send(chat(stream=True, **ENDLESS))
        await running.read_until(b"content")
        asked = [asyncio.ensure_future(status_of(router)) for _ in range(50)]
        await until(lambda: admission.waiting == 50)
        [worker] = router.server.pool.workers
        async with router.session.delete(f"{router.url}/workers/{worker.url.replace('/', '%2F')}") as response:
            assert response.status == 202
        running.hang_up()
        assert await asyncio.gather(*asked) == [503] * 50
        await until(lambda: is_free(router))


async def status_of(router, key=None):
    headers = {} if key is None else {"x-api-key": key}
    async with router.post(headers=headers) as response:
        await response.read()
        return response.status


async def test_keys_share_the_cap_fairly(simulated_engine):
    async with (
        simulated_engine(ttft_s=0.005) as engine,
        running_router(
            [engine], auth={"keys": KEYS}, admission={"max_concurrent_requests": 2, "queue_size": 500}
        ) as router,
    ):
        order = []

        async def ask(key):
            assert await status_of(router, key) == 200
            order.append(key)

        flood = [asyncio.ensure_future(ask("sk-a")) for _ in range(60)]
        await until(lambda: router.server.gate.admission.waiting >= 50)
        few = [asyncio.ensure_future(ask("sk-b")) for _ in range(8)]
        await asyncio.gather(*few)
        assert Counter(order)["sk-a"] < 40  # b did not wait for all of a
        await asyncio.gather(*flood)
        await until(lambda: is_free(router))


STAGES = ["before sending", "in the body", "queued", "some turns later", "after the head", "nowhere"]


async def visit(router, chance):
    """Send a request and hang up at a stage of it, or read it to its end."""
    stage = chance.choice(STAGES)
    stream = chance.random() < 0.7
    body = chat("word " * chance.randrange(300), stream=stream)
    key = chance.choice(KEYS)["key"]
    priority = chance.choice([b"high", b"low", b"normal", b"?"])
    data = request_bytes(body).replace(
        b"\r\n", b"\r\nx-api-key: %b\r\nx-request-priority: %b\r\n" % (key.encode(), priority), 1
    )
    async with await RawClient.connect(router.url) as client:
        client.writer.write(data[: {"before sending": 0, "in the body": len(data) - 5}.get(stage, len(data))])
        if stage == "queued":
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0.001)
        if stage == "some turns later":
            for _ in range(chance.randrange(80)):
                await asyncio.sleep(0)
        if stage in ("after the head", "nowhere"):
            status, headers = await client.read_head()
            if stage == "nowhere" and "content-length" in headers:
                await client.reader.readexactly(int(headers["content-length"]))
            elif stage == "nowhere":
                await client.read_until(b"0\r\n\r\n")
        else:
            status = None
        if chance.random() < 0.5:
            client.hang_up()
        else:
            client.writer.close()
    return stage, status


@pytest.mark.parametrize("seed", [1, 2])
async def test_clients_that_leave_at_any_stage_give_every_place_back(simulated_engines, seed):
    chance = random.Random(seed)
    async with (
        simulated_engines(3, tokens=8, ttft_s=0.003) as engines,
        running_router(
            engines,
            auth={"keys": KEYS},
            admission={"max_concurrent_requests": 8, "queue_size": 20, "queue_timeout_s": 0.1},
        ) as router,
    ):
        gate = asyncio.Semaphore(60)

        async def one(number):
            async with gate:
                return await visit(router, random.Random(number))

        visits = Counter(await asyncio.gather(*(one(chance.random()) for _ in range(500))))
        await until(lambda: is_free(router), "every place and every load given back")
        for engine in engines:
            await engine.wait_idle()
        assert {status for _, status in visits} <= {None, 200, 408, 429}
        assert sum(times for (stage, status), times in visits.items() if status == 200) > 50
        assert not any(flow.running for flow in router.server.gate.admission._flows.values())
        assert await status_of(router, "sk-a") == 200  # and the router serves on
