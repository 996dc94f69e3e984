"""A pair that failed before anything was answered is followed by another pair, by the same rules as a single worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import ClassVar

import pytest

from router_core.api import Leg, OutcomeStatus, hookimpl
from router_core.testing.simulated_engine import Fault

from .pd_support import NEVER_S, PREFILL, assert_nothing_is_left, options_of, running_pair_router, two_of_each
from .support import RawClient, chat, in_house, until

SOON = {"initial_backoff_s": 0.001}
QUICK_CHECKS = {"interval_s": 0.05, "timeout_s": 0.2, "failure_threshold": 1}


class FirstPair:
    """Takes the first worker of each side, in the order of the config."""

    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        return prefill_workers[0], decode_workers[0]


@contextlib.asynccontextmanager
async def retrying(protocol="sglang", *, connector="nixl", **settings):
    """Run two engines of each role, by name, and a router that sends requests again."""
    settings = {"retries": SOON, "policy": in_house(FirstPair)} | settings
    async with (
        two_of_each(protocol, connector=connector) as (prefills, decodes),
        running_pair_router(prefills, decodes, protocol=protocol, **settings) as router,
    ):
        yield {engine.name: engine for engine in (*prefills, *decodes)}, router


def of(completions, leg):
    return [(c.worker.url, c.outcome.status, c.outcome.attempt) for c in completions if c.outcome.leg is leg]


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"fault": Fault.CLOSE_BEFORE_HEAD}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_leg_costs_another_attempt_without_its_worker(protocol, role, fault, stream):
    async with retrying(protocol) as (engines, router):
        bad = engines[f"{role}-0"]
        for name, value in fault.items():
            setattr(bad, name, value)
        async with router.post(body=chat(stream=stream)) as response:
            assert response.status == 200, await response.text()
            await response.read()
        await router.legs(2)
        completed = router.record.completed
        failed = {
            completion.worker.url: completion.outcome.status
            for completion in completed
            if completion.outcome.attempt == 1
        }
        assert failed[bad.url] == ("backpressure" if fault.get("status") == 503 else "error")
        other = engines["decode-0" if role == "prefill" else "prefill-0"]
        assert failed[other.url] in ("cancelled", "success")  # vLLM's prefill is over before decode begins
        last = of(completed, Leg(role))[-1]
        assert last == (engines[f"{role}-1"].url, "success", 2)
        for engine in engines.values():
            await engine.wait_idle()


async def test_each_attempt_meets_in_rooms_of_its_own():
    async with retrying() as (engines, router):
        engines["decode-0"].status = 500
        async with router.post() as response:
            assert response.status == 200
        rooms = [request.json()["bootstrap_room"] for engine in engines.values() for request in engine.requests]
        assert len(rooms) == 4
        assert len(set(rooms)) == 2


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
async def test_what_the_last_decode_worker_said_goes_to_the_client(protocol):
    async with retrying(protocol) as (engines, router):
        for engine in (engines["decode-0"], engines["decode-1"]):
            engine.status, engine.retry_after_s = 503, 0
        async with router.post() as response:
            assert (response.status, response.headers["retry-after"]) == (503, "0")
        await until(router.is_settled)
        assert len(of(router.record.completed, Leg.DECODE)) == 3
        retries = router.server.pools[-1].dispatcher.retries
        assert not retries.retrying


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_pair_with_a_worker_found_dead_is_replaced(protocol, role):
    async with retrying(protocol, health=QUICK_CHECKS) as (engines, router):
        dead = engines[f"{role}-0"]
        dead.fault = Fault.HANG
        async with await RawClient.connect(router.url) as client:
            client.send()
            await dead.wait_accepted()
            dead.health_hangs = True
            assert (await client.read_answer())[0] == 200
        await router.legs(2)
        first = {c.worker.url: c.outcome.status for c in router.record.completed if c.outcome.attempt == 1}
        assert first[dead.url] == "error"
        assert "error" not in [status for url, status in first.items() if url != dead.url]


async def test_a_client_that_leaves_between_two_pairs_ends_it():
    async with retrying(retries={"initial_backoff_s": 1000, "max_backoff_s": 1000}) as (engines, router):
        engines["decode-0"].status = engines["decode-1"].status = 500
        async with await RawClient.connect(router.url) as client:
            client.send()
            await router.legs(1)
        retries = router.server.pools[-1].dispatcher.retries
        await until(lambda: not retries.retrying, "the request is forgotten")
        await asyncio.sleep(0)
        assert len(router.record.completed) == 2


async def test_legs_that_both_hang_are_checked_and_neither_is_blamed():
    """Of SGLang's two legs each waits for the other: from outside nobody can tell which one hangs."""
    settings = {"limits": {"first_byte_timeout_s": 0.1}, "breaker": {"failure_threshold": 1}}
    async with retrying(**settings) as (engines, router):
        engines["prefill-0"].fault = Fault.HANG
        probes = engines["prefill-0"].probes, engines["decode-0"].probes
        async with router.post() as response:
            assert response.status == 200
        await router.legs(2)
        first = [c.outcome.status for c in router.record.completed if c.outcome.attempt == 1]
        assert first == ["timeout", "timeout"]
        assert {worker.circuit for worker in router.server.pool.workers} == {"closed"}
        await until(lambda: engines["prefill-0"].probes > probes[0] and engines["decode-0"].probes > probes[1])


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
async def test_when_no_prefill_worker_can_be_reached_each_is_tried_once(protocol):
    async with retrying(protocol) as (engines, router):
        for name in ("prefill-0", "prefill-1"):
            await engines[name].stop()
        async with router.post() as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "upstream_connection_failed"
        legs = await router.legs(2)
        assert {outcome.status for outcome in legs[Leg.PREFILL]} == {OutcomeStatus.ERROR}


@pytest.mark.parametrize("is_stopped", [True, False], ids=["stopped", "wrong port"])
async def test_a_bootstrap_server_that_cannot_be_asked_sends_the_request_elsewhere(is_stopped):
    mooncake = {"connector": "mooncake", "options": {"connector": "mooncake"}}
    async with retrying("vllm", **mooncake) as (engines, router):
        if is_stopped:
            await engines["prefill-0"].stop()
        else:
            object.__setattr__(router.worker(PREFILL), "labels", {"bootstrap_port": "9"})
        async with router.post() as response:
            assert response.status == 200
        legs = await router.legs(2)
        assert [outcome.status for outcome in legs[Leg.PREFILL]] == ["error", "success"]
        assert [outcome.status for outcome in legs[Leg.DECODE]] == ["cancelled", "success"]
        assert engines["decode-0"].accepted == 1


# --- a decode worker that was never reached ---


class DecodeLegs:
    """Takes the first worker of each side; remembers which legs it was asked for."""

    asked: ClassVar[list[tuple[str, int, tuple[str, ...]]]] = []

    @hookimpl
    def select_single(self, workers, request):
        self.asked.append((request.leg.value, request.attempt, tuple(worker.url for worker in workers)))
        return workers[0]


@contextlib.asynccontextmanager
async def dead_between_the_legs(connector, **settings):
    """Give a client whose decode worker goes while its prompt is computed, and the engines."""
    settings = {"connector": connector, "options": options_of("vllm", connector)} | settings
    async with retrying("vllm", **settings) as (engines, router), await RawClient.connect(router.url) as client:
        engines["prefill-0"].ttft_s = 0.05
        yield engines, router, client


@pytest.mark.parametrize("connector", ["nixl", "nixl-push", "mooncake"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_decode_worker_that_cannot_be_reached_costs_no_second_prefill(connector, stream):
    async with dead_between_the_legs(connector) as (engines, router, client):
        client.send(chat(stream=stream))
        await engines["prefill-0"].wait_running()
        await engines["decode-0"].stop()
        assert (await client.read_head() if stream else await client.read_answer())[0] == 200
        if stream:
            assert b"data: [DONE]" in await client.read_until(b"\r\n0\r\n\r\n")
        await until(lambda: len(router.record.completed) == 3)
        assert router.is_settled()
        assert of(router.record.completed, Leg.PREFILL) == [(engines["prefill-0"].url, "success", 1)]
        failed, served = of(router.record.completed, Leg.DECODE)
        assert failed == (engines["decode-0"].url, "error", 1)
        assert served == (engines["decode-1"].url, "success", 2)
        assert (engines["prefill-0"].accepted, engines["prefill-1"].accepted) == (1, 0)
        await assert_nothing_is_left(engines["prefill-0"], engines["decode-1"])


async def test_the_policy_is_asked_for_the_decode_leg_alone():
    DecodeLegs.asked.clear()
    async with dead_between_the_legs("nixl", policy=in_house(DecodeLegs)) as (engines, _router, client):
        client.send()
        await engines["prefill-0"].wait_running()
        await engines["decode-0"].stop()
        assert (await client.read_answer())[0] == 200
        both = engines["decode-0"].url, engines["decode-1"].url
        assert DecodeLegs.asked[1:] == [("decode", 1, both), ("decode", 2, both[1:])]


@pytest.mark.parametrize("connector", ["nixl", "mooncake"])
async def test_a_client_that_left_has_its_kv_cache_fetched_by_another_decode_worker(connector):
    async with dead_between_the_legs(connector) as (engines, router, client):
        client.send()
        await engines["prefill-0"].wait_running()
        await engines["decode-0"].stop()
        client.hang_up()
        await until(lambda: len(router.record.completed) == 3)
        assert of(router.record.completed, Leg.DECODE)[1] == (engines["decode-1"].url, "cancelled", 2)
        await assert_nothing_is_left(engines["prefill-0"], engines["decode-1"])


@pytest.mark.parametrize("connector", ["nixl", "nixl-push", "mooncake", "p2p"])
async def test_a_kv_cache_that_may_have_been_fetched_is_not_fetched_again(connector):
    """An engine that pulls by NIXL does not notice that what it reads was given up, and answers nonsense."""
    async with dead_between_the_legs(connector) as (engines, router, client):
        assert await router.ask() == "decode-0"  # there is a kept connection now
        engines["decode-0"].token_interval_s = NEVER_S
        client.send()
        await until(lambda: engines["decode-0"].transfers == 2)
        await engines["decode-0"].stop()
        assert (await client.read_answer())[0] == 200
        assert (engines["prefill-0"].accepted, engines["decode-1"].accepted) == (3, 1)
        await assert_nothing_is_left(engines["prefill-0"], engines["decode-1"])


@pytest.mark.parametrize("connector", ["nixl", "p2p"])
async def test_no_decode_worker_that_can_be_reached_is_an_error(connector):
    async with dead_between_the_legs(connector) as (engines, router, client):
        client.send()
        await engines["prefill-0"].wait_running()
        await engines["decode-0"].stop()
        await engines["decode-1"].stop()
        status, body = await client.read_answer()
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_connection_failed")
        await until(router.is_settled)
        assert not router.server.pools[-1].dispatcher.retries.retrying
