"""Clients of prefill/decode pairs that leave: no KV cache is stranded, and nothing runs on that nobody waits for."""

from __future__ import annotations

import json

import pytest

from router_core.api import OutcomeStatus

from .pd_support import CONNECTORS, NEVER_S, assert_nothing_is_left, pair, vllm_pair
from .support import RawClient, chat

SUCCESS, CANCELLED = OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED


@pytest.mark.parametrize("make_pair", [pair, vllm_pair], ids=["sglang", "vllm"])
async def test_a_client_that_leaves_during_decode_ends_it_at_once(make_pair):
    async with make_pair(decode={"token_interval_s": NEVER_S}) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            await client.read_until(b"data: ")
            client.hang_up()
            await decode.wait_for_abort()
        assert await router.statuses() == (SUCCESS, CANCELLED)
        await assert_nothing_is_left(prefill, decode)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_sglang_that_leaves_during_the_prefill_has_its_transfer_finished(stream):
    async with pair(prefill={"ttft_s": 0.05}, decode={"token_interval_s": NEVER_S}) as (prefill, decode, router):
        await _leave_during_prefill(router, prefill, chat(stream=stream))
        assert await router.statuses() == (SUCCESS, CANCELLED)
        assert (prefill.transfers, decode.transfers) == (1, 1)
        await assert_nothing_is_left(prefill, decode)


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_vllm_that_leaves_between_the_legs_has_one_token_decoded(connector, stream):
    async with vllm_pair(connector, prefill={"ttft_s": 0.05}) as (prefill, decode, router):
        await _leave_during_prefill(router, prefill, chat(stream=stream))
        assert await router.statuses() == (SUCCESS, CANCELLED)
        assert (prefill.transfers, decode.transfers) == (1, 1)
        assert json.loads(decode.requests[-1].body)["max_tokens"] == 1
        await assert_nothing_is_left(prefill, decode)


async def test_a_client_that_leaves_while_log_probabilities_are_merged_leaves_nothing_behind():
    async with pair(prefill={"ttft_s": 0.05}, decode={"token_interval_s": NEVER_S}) as (prefill, decode, router):
        await _leave_during_prefill(router, prefill, {"text": "x", "return_logprob": True, "stream": True}, "/generate")
        assert await router.statuses() == (SUCCESS, CANCELLED)
        await assert_nothing_is_left(prefill, decode)


async def _leave_during_prefill(router, prefill, *request):
    async with await RawClient.connect(router.url) as client:
        client.send(*request)
        await prefill.wait_running()
        client.hang_up()


# --- what lingers, and for how long ---


async def test_legs_of_a_client_that_left_do_not_linger_for_ever():
    options = {"linger_s": 0.05}
    async with pair(prefill={"ttft_s": NEVER_S}, options=options) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat())
            await prefill.wait_running()
            await decode.wait_running()
            client.hang_up()
        assert await router.statuses() == (CANCELLED, CANCELLED)
        await assert_nothing_is_left(prefill, decode)


async def test_legs_that_linger_are_cut_when_the_router_stops():
    limits = {"shutdown_grace_s": 0}
    async with pair(prefill={"ttft_s": NEVER_S}, limits=limits) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat())
            await prefill.wait_running()
            await decode.wait_running()
            await router.server.stop()
        assert await router.statuses() == (CANCELLED, CANCELLED)
        await assert_nothing_is_left(prefill, decode)


async def test_a_client_that_leaves_before_decodes_whole_answer_lets_it_linger_for_a_moment():
    slow = {"token_interval_s": NEVER_S}
    async with vllm_pair(decode=slow, options={"linger_s": 0.2}) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send()
            await decode.wait_running()
            client.hang_up()
        await decode.wait_for_abort()
        assert await router.statuses() == (SUCCESS, CANCELLED)
        await assert_nothing_is_left(prefill, decode)
