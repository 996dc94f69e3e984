"""Pairs beside other features: another policy in their pool under load, and a pool of pairs for one model of many."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from router_core.api import Leg, PolicyConfig, hookimpl
from router_core.config import RouterConfig
from router_core.testing.simulated_engine import Fault, SimulatedEngine

from .pd_support import DECODE, PREFILL, JointPolicy, assert_nothing_is_left, running_pair_router
from .support import RawClient, chat, in_house, running_router, until

STOPPED: list[int] = []


class Counted:
    """Places each leg by itself and counts what it placed against what it was told."""

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config):
        self.balance = 0

    @hookimpl
    def select_single(self, workers, request):
        self.balance += 1
        return min(workers, key=lambda worker: worker.load)

    @hookimpl
    def on_request_complete(self):
        self.balance -= 1

    @hookimpl
    def on_stop(self):
        STOPPED.append(self.balance)


class CountedJointly(Counted):
    """Places both legs at once."""

    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        self.balance += 2
        return prefill_workers[self.balance % len(prefill_workers)], decode_workers[0]


@contextlib.asynccontextmanager
async def engines_of(protocol, count, **knobs):
    async with contextlib.AsyncExitStack() as stack:
        yield [
            [
                await stack.enter_async_context(
                    SimulatedEngine(name=f"{role}-{number}", role=role, pd=protocol, tokens=4, **knobs)
                )
                for number in range(count)
            ]
            for role in ("prefill", "decode")
        ]


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
async def test_a_policy_of_pairs_is_replaced_under_load(protocol):
    """By one for both legs, by one for each leg alone, and back; each is stopped after its last completion."""
    STOPPED.clear()
    total, at_once, every, started, swaps = 600, 30, 60, 0, 0
    single, joint = {"name": in_house(Counted)}, {"name": in_house(CountedJointly)}
    rounds = itertools.cycle(
        [
            {"policy": joint},
            {"policy": single, "prefill_policy": single, "decode_policy": single},
            {"policy": single},
            {"policy": single, "decode_policy": single},
        ]
    )
    async with (
        engines_of(protocol, 2) as (prefills, decodes),
        running_pair_router(prefills, decodes, protocol=protocol, policy=single) as router,
    ):
        first = router.server.config.model_dump(exclude_unset=True)

        async def client():
            nonlocal started, swaps
            while started < total:
                started += 1
                if started % every == 0:
                    settings = RouterConfig.model_validate(first | next(rounds))
                    await router.server.reloading.reload(lambda new=settings: new)
                    swaps += 1
                async with router.post(body=chat(stream=started % 2 == 0)) as response:
                    assert response.status == 200, await response.text()
                    await response.read()

        await asyncio.gather(*(client() for _ in range(at_once)))
        legs = await router.legs(len(router.record.completed) // 2)
        assert len(legs[Leg.PREFILL]) >= total
        assert {outcome.status for outcomes in legs.values() for outcome in outcomes} == {"success"}
        await assert_nothing_is_left(*prefills, *decodes)
        # Two of the four have a policy on each side, which stops too.
        await until(lambda: len(STOPPED) >= swaps, "every policy that was replaced has stopped")
        assert swaps == total // every
    assert set(STOPPED) == {0}, STOPPED


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
async def test_a_pair_under_way_completes_with_the_policy_that_placed_it(protocol):
    STOPPED.clear()
    async with (
        engines_of(protocol, 1) as (prefills, decodes),
        running_pair_router(
            prefills, decodes, protocol=protocol, policy=in_house(Counted), options={"linger_s": 0.05}
        ) as router,
    ):
        decodes[0].fault = Fault.HANG
        waiting = asyncio.ensure_future(router.ask())
        await until(lambda: decodes[0].requests, "a pair under way")
        async with router.session.put(f"{router.url}/pools/default/policy", json=in_house(JointPolicy)) as response:
            assert response.status == 200, await response.text()
        decodes[0].fault = None
        await router.ask()
        assert STOPPED == []
        waiting.cancel()
        await until(lambda: STOPPED == [0], "the old policy stopped, having heard of both legs")


@contextlib.asynccontextmanager
async def router_of_two_models(protocol, **settings):
    """Run a router with pairs for the model `pairs`, alias `p`, and a regular worker for everything else."""
    async with (
        engines_of(protocol, 2, models=("pairs",)) as (prefills, decodes),
        SimulatedEngine(name="regular", models=("other",)) as regular,
    ):
        pd = {
            "protocol": protocol,
            "prefill": [{"url": each.url, "bootstrap_port": each.bootstrap_port or None} for each in prefills],
            "decode": [each.url for each in decodes],
        }
        model = {"name": "pairs", "aliases": ["p"], "pd": pd, "policy": in_house(Counted)}
        async with running_router([regular], models=[model], wrappers=[], **settings) as router:
            pool = router.server.pool
            await until(lambda: len(pool.candidates(PREFILL)) == len(pool.candidates(DECODE)) == 2, "healthy pairs")
            await until(lambda: all(worker.models for worker in pool.workers), "known models")
            yield router, prefills, decodes, regular


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_may_be_served_by_pairs_and_others_by_regular_workers(protocol, stream):
    async with router_of_two_models(protocol) as (router, prefills, decodes, regular):
        for name in ("pairs", "p"):
            assert await router.ask(body=chat(model=name, stream=stream)) in {each.name for each in decodes}
        assert await router.ask(body=chat(model="other", stream=stream)) == regular.name
        async with router.post(body=chat(model="nobodys")) as response:
            assert response.status == 404
        await until(lambda: len(router.record.completed) == 5, "two legs each for pairs, one for the other")
        assert sorted(completion.outcome.leg for completion in router.record.completed) == sorted(
            [Leg.PREFILL, Leg.DECODE] * 2 + [Leg.SINGLE]
        )
        assert {completion.request.model for completion in router.record.completed} == {"pairs", "other"}
        await assert_nothing_is_left(*prefills, *decodes)
        by_pool = {
            (sample.labels["pool"], sample.labels["leg"]): 0
            for sample in (await router.metrics())["router_core_requests_total"]
        }
        assert set(by_pool) == {("pairs", "prefill"), ("pairs", "decode"), ("default", "single")}
        async with router.get("/v1/models") as response:
            assert {model["id"] for model in (await response.json())["data"]} >= {"pairs", "p", "other"}


async def test_the_policy_of_a_models_pairs_is_replaced_alone():
    async with router_of_two_models("sglang") as (router, _, decodes, _regular):
        rest = router.server.pools[-1].policy
        async with router.session.put(f"{router.url}/pools/pairs/policy", json=in_house(JointPolicy)) as response:
            assert response.status == 200, await response.text()
        assert router.server.pools[-1].policy is rest
        assert await router.ask(body=chat(model="pairs")) == decodes[-1].name
        async with router.session.put(f"{router.url}/pools/default/policy", json=in_house(PairsOnly)) as response:
            assert response.status == 400, "no pairs are placed there"


class PairsOnly:
    """Cannot place a request of one worker."""

    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        return prefill_workers[0], decode_workers[0]


async def test_a_models_pair_whose_decode_fails_is_tried_again_within_its_pool():
    async with router_of_two_models("sglang", retries={"initial_backoff_s": 0.001}) as (router, _, decodes, regular):
        decodes[0].status = 503
        for _ in range(4):
            assert await router.ask(body=chat(model="p")) == decodes[1].name
        assert await router.ask(body=chat(model="other")) == regular.name


async def test_a_client_that_leaves_a_models_pair_strands_nothing():
    async with router_of_two_models("vllm") as (router, prefills, decodes, _):
        for _ in range(6):
            async with await RawClient.connect(router.url) as client:
                client.send(chat(model="p", stream=True))
                client.hang_up()
        await router.ask(body=chat(model="p"))
        await until(lambda: not any(map(any, router.load())), "no load left")
        await assert_nothing_is_left(*prefills, *decodes)


async def test_without_a_prefill_worker_a_model_is_unavailable_and_the_others_are_served():
    async with router_of_two_models("sglang") as (router, prefills, _, regular):
        for engine in prefills:
            router.server.pool.remove(engine.url)
        async with router.post(body=chat(model="pairs")) as response:
            assert response.status == 503
        assert await router.ask(body=chat(model="other")) == regular.name
