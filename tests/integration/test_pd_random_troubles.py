"""Clients that hang up and workers that die at any moment, while transfers take their time.

No load is left, no completion missed, and every client that stays gets the right answer or a clear error.

Where only clients hang up, nothing at all may be stranded. A worker that dies takes its transfers with it, and what a
decode worker may have begun to fetch as it died stays with vLLM's prefill worker until that gives it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections import Counter

import pytest

from router_core.api import Leg, OutcomeStatus
from router_core.testing.engine_request import expected_text
from router_core.testing.simulated_engine import SimulatedEngine

from .pd_support import assert_nothing_is_left, options_of, running_pair_router, turns
from .support import RawClient, chat, request_bytes, until

AT_ONCE = 40
TOKENS = 6
FULL = pytest.param(2000, id="full", marks=[pytest.mark.load, pytest.mark.async_timeout(600)])
PROTOCOLS = [("sglang", "nixl"), ("vllm", "nixl"), ("vllm", "nixl-push"), ("vllm", "mooncake"), ("vllm", "p2p")]


def engine(role, number, protocol, connector):
    knobs = {"pd": protocol, "connector": connector, "tokens": TOKENS, "transfer_timeout_s": 60.0, "transfer_s": 0.02}
    return SimulatedEngine(name=f"{role}{number}", role=role, **knobs)


async def visit(url, chance, *, may_merge):
    """Send one request and read its answer, or hang up somewhere on the way; return where."""
    stream = chance.random() < 0.6
    body = chat("word " * chance.randrange(300), stream=stream)
    path = "/v1/chat/completions"
    if may_merge and chance.random() < 0.3:
        body = {"text": ["one", "two"][: chance.randrange(1, 3)], "return_logprob": True, "stream": stream}
        path = "/generate"
    elif stream and chance.random() < 0.3:
        body["stream_options"] = {"include_usage": True}
    stops = ["after sending", "some turns later", "after the head", "in the stream"]
    stop = chance.choice(stops) if chance.random() < 1 / 3 else "nowhere"
    data = request_bytes(body, path)
    if stop == "nowhere":
        data = data.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    async with await RawClient.connect(url) as client:
        client.writer.write(data)
        if stop == "some turns later":
            await turns(chance.randrange(400))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            status = 0
            if stop in ("after the head", "in the stream"):
                status, _ = await client.read_head()
            if stop == "in the stream" and stream and status == 200:
                for _ in range(chance.randrange(5)):
                    await client.read_until(b"\n\n")
            if stop == "nowhere":
                return judge(await client.read_rest(), body, path)
        if chance.random() < 0.5:
            client.hang_up()
    return stop


def judge(answer, body, path):
    """Return `right` for a whole answer, else the error the client was told, or `broken off` if it can see that."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    is_chunked = b"chunked" in head.lower()
    if is_chunked:
        is_whole, rest = rest.endswith(b"0\r\n\r\n"), re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", rest)
    else:
        is_whole = len(rest) == int(re.search(rb"content-length: *(\d+)", head.lower())[1])
    if not is_whole:
        return "broken off"
    if status != "200":
        assert json.loads(rest)["error"]["message"]
        return status
    if not body.get("stream"):
        document = json.loads(rest)
        items = document if isinstance(document, list) else [document]
        for choice, item in enumerate(items):
            text = item["text"] if "text" in item else item["choices"][0]["message"]["content"]
            assert text == expected_text(body, path=path, tokens=TOKENS, choice=choice)
        return "right"
    assert b"data: [DONE]" in rest, rest
    return "error event" if b'"error"' in rest else "right"


async def send_all(url, requests, seed, *, may_merge):
    chance = random.Random(seed)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(seed):
        async with gate:
            return await visit(url, random.Random(seed), may_merge=may_merge)

    return Counter(await asyncio.gather(*(one(chance.random()) for _ in range(requests))))


def check_completions(router):
    """Each attempt has one completion of either leg, or of decode alone where what prefill had computed was kept."""
    legs = Counter()
    attempts = {}
    for worker, request, outcome in router.record.completed:
        assert worker.role.value == outcome.leg.value
        assert request.attempt == outcome.attempt
        legs[id(request), outcome.leg] += 1
        attempts[id(request)] = request
    assert set(legs.values()) == {1}
    for key, request in attempts.items():
        assert legs[key, Leg.DECODE] == 1
        assert legs[key, Leg.PREFILL] == 1 or request.attempt > 1
    assert all(worker.requests_processed for worker in router.server.pool.workers)


@pytest.mark.parametrize("requests", [pytest.param(240, id="small"), FULL])
@pytest.mark.parametrize(("protocol", "connector"), PROTOCOLS)
async def test_a_third_of_the_clients_hanging_up_strands_nothing(protocol, connector, requests):
    engines = [engine(role, number, protocol, connector) for role in ("prefill", "decode") for number in range(2)]
    options = options_of(protocol, connector)
    async with contextlib.AsyncExitStack() as stack:
        for each in engines:
            await stack.enter_async_context(each)
        router = await stack.enter_async_context(
            running_pair_router(
                engines[:2], engines[2:], protocol=protocol, options=options, policy={"name": "cache_aware", "seed": 1}
            )
        )
        stops = await send_all(router.url, requests, 20, may_merge=protocol == "sglang")
        assert requests / 4 < requests - stops["right"] < requests / 2
        await until(router.is_settled, "no load")
        await assert_nothing_is_left(*engines)
        check_completions(router)
        statuses = Counter((outcome.leg, outcome.status) for _, _, outcome in router.record.completed)
        assert {status for _, status in statuses} <= {OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED}
        assert statuses[Leg.DECODE, OutcomeStatus.SUCCESS] >= stops["right"]
        assert await router.ask()  # and the router serves on


@pytest.mark.parametrize("requests", [pytest.param(240, id="small"), FULL])
@pytest.mark.parametrize(("protocol", "connector"), PROTOCOLS)
async def test_workers_that_die_leave_no_load_and_no_client_without_an_answer(protocol, connector, requests, caplog):
    engines = [engine(role, number, protocol, connector) for role in ("prefill", "decode") for number in range(3)]
    options = {"linger_s": 1.0}
    options |= options_of(protocol, connector)
    chance = random.Random(7)

    async def die_now_and_then():
        while True:
            victim = chance.choice([engines[0], engines[3]])
            await victim.wait_until(lambda: victim.running)  # noqa: B023 - it is waited for here
            await turns(chance.randrange(30))
            await victim.stop()
            await turns(chance.randrange(50, 300))
            await victim.start()
            await turns(chance.randrange(300))

    async with contextlib.AsyncExitStack() as stack:
        for each in engines:
            await stack.enter_async_context(each)
        router = await stack.enter_async_context(
            running_pair_router(
                engines[:3],
                engines[3:],
                protocol=protocol,
                options=options,
                health={"interval_s": 0.05},
                breaker={"open_s": 0.05, "success_threshold": 1},
                retries={"initial_backoff_s": 0.001},
            )
        )
        reaper = asyncio.ensure_future(die_now_and_then())
        try:
            stops = await send_all(router.url, requests, 21, may_merge=protocol == "sglang")
        finally:
            reaper.cancel()
            await asyncio.gather(reaper, return_exceptions=True)
        await until(router.is_settled, "no load")
        check_completions(router)
        for survivor in engines[1:3]:
            await survivor.wait_idle()
        # What vLLM's prefill engine holds for a decode engine that died is its to give up, by its own timeout. Where
        # another decode worker may have it, that is only what the dead one may have begun to fetch.
        dead = engines[3].url
        failed = [outcome for worker, _, outcome in router.record.completed if worker.url == dead]
        lost = sum(outcome.status is OutcomeStatus.ERROR for outcome in failed)
        if connector != "p2p" and protocol != "sglang":
            lost -= sum(f"no connection to {dead}:" in record.getMessage() for record in caplog.records)
        counts = [survivor.counters() for survivor in engines[1:3]]
        assert [count["refused"] for count in counts] == [0, 0]
        assert sum(count["stranded"] + count["held"] for count in counts) <= lost
        assert protocol != "sglang" or [count["held"] for count in counts] == [0, 0]
        assert stops["right"] > requests / 3
        statuses = {outcome.status for _, _, outcome in router.record.completed}
        assert statuses >= {OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED, OutcomeStatus.ERROR}
