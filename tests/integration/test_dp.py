"""Data-parallel ranks: the policy chooses among them, the engine is told, and load is counted by rank."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from urllib.parse import quote

import pytest
import yarl

from router_core.testing.simulated_engine import SimulatedEngine

from .pd_support import DECODE, PREFILL, options_of
from .support import RawClient, chat, running_router, until
from .test_admin import NOBODY, call


async def test_without_the_setting_an_engine_is_one_worker_and_bodies_stay(simulated_engine):
    async with simulated_engine(dp_size=2) as engine, running_router([engine]) as router:
        await router.ask()
        assert [worker.url for worker in router.server.pool.workers] == [engine.url]
        assert b"data_parallel_rank" not in engine.requests[-1].body
        await router.settled(1)


async def test_each_rank_is_a_candidate_and_the_engine_is_told_which(simulated_engine):
    async with (
        simulated_engine(dp_size=4) as engine,
        running_router([engine], expect_healthy=4, dp_aware=True) as router,
    ):
        assert [worker.url for worker in router.server.pool.candidates()] == [f"{engine.url}@{n}" for n in range(4)]
        for _ in range(8):
            await router.ask()
        told = [json.loads(request.body)["data_parallel_rank"] for request in engine.requests]
        assert Counter(told) == {0: 2, 1: 2, 2: 2, 3: 2}
        assert [f"{engine.url}@{rank}" for rank in told] == router.record.selected
        original = json.dumps(chat()).encode()
        assert all(request.body.startswith(original[:-1]) for request in engine.requests)
        await router.settled(8)
        (info,) = (await call(router, "GET", "/workers"))[1]["workers"]
        assert (info["metadata"], info["status"], info["runtime_type"]) == ({"dp_size": "4"}, "ready", "sglang")
        assert (await call(router, "GET", "/list_workers"))[1] == {"urls": [engine.url]}
        assert (await call(router, "POST", "/flush_cache"))[1]["total_http_workers"] == 1


async def test_who_names_a_rank_to_administration_is_told_to_name_its_engine(simulated_engine):
    async with (
        simulated_engine(dp_size=2) as engine,
        running_router([engine], expect_healthy=2, dp_aware=True) as router,
    ):
        rank = f"{engine.url}@1"
        for method, path in (
            ("POST", f"/remove_worker?url={rank}"),
            ("POST", f"/add_worker?url={rank}"),
            ("DELETE", f"/workers/{quote(rank, safe='')}"),
        ):
            async with router.session.request(method, yarl.URL(router.url + path, encoded=True)) as response:
                assert response.status == 400
                error = (await response.json())["error"]
                assert error == f"url: {rank} is a rank of {engine.url}, whose ranks join and leave together; " + (
                    f"name {engine.url}"
                )
        async with router.session.post(f"{router.url}/remove_worker?url={engine.url}") as response:
            assert response.status == 200
        assert router.server.pool.workers == ()


async def test_a_request_that_is_tried_elsewhere_names_the_other_rank_alone(simulated_engines):
    async with (
        simulated_engines(2, dp_size=2) as (first, second),
        running_router([first, second], expect_healthy=4, dp_aware=True) as router,
    ):
        await first.stop()
        for _ in range(4):
            async with router.post() as response:
                assert response.status == 200
        for request in second.requests:
            assert request.body.count(b"data_parallel_rank") == 1
        assert all(rank == (0, 0, 0) for rank in router.load())


async def test_all_ranks_of_an_engine_drain_together(simulated_engine):
    async with (
        simulated_engine(dp_size=2, token_interval_s=0.005) as engine,
        running_router([engine], expect_healthy=2, dp_aware=True) as router,
    ):
        (registration,) = router.server.registrations.registrations
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True, max_tokens=10_000, ignore_eos=True))
            await client.read_until(b"\n\n")
            assert (await call(router, "DELETE", f"/workers/{registration.id}"))[0] == 202
            assert len(router.server.pool.workers) == 1  # the idle rank has left
            info = (await call(router, "GET", f"/workers/{registration.id}"))[1]
            assert (info["status"], info["load"]) == ("draining", 1)
            assert (await call(router, "POST", "/workers", {"url": NOBODY}))[0] == 202
            client.hang_up()
        await until(lambda: router.server.registrations.at(engine.url) is None, "the engine gone")


@contextlib.asynccontextmanager
async def pair_of_ranks(protocol, *, connector="nixl", **settings):
    """Run a prefill and a decode engine of two ranks each; the policy sends nothing where the engines would guess."""
    knobs = {"pd": protocol, "connector": connector, "dp_size": 2, "tokens": 4}
    options = options_of(protocol, connector)
    async with (
        SimulatedEngine(name="prefill", role="prefill", **knobs) as prefill,
        SimulatedEngine(name="decode", role="decode", **knobs) as decode,
    ):
        labels = {"dp_size": "2"}
        sources = [
            {"url": prefill.url, "role": "prefill", "bootstrap_port": prefill.bootstrap_port, "labels": labels},
            {"url": decode.url, "role": "decode", "labels": labels},
        ]
        async with running_router(
            [],
            expect_healthy=0,
            dp_aware=True,
            policy={"name": "random", "seed": 7},
            pd={"protocol": protocol, "enabled": True, "options": options},
            membership=[{"name": "static", "options": {"workers": sources}}],
            **settings,
        ) as router:
            candidates = router.server.pool.candidates
            await until(lambda: len(candidates(PREFILL)) == 2 and len(candidates(DECODE)) == 2, "two ranks of each")
            yield prefill, decode, router


@pytest.mark.parametrize(
    ("protocol", "connector"),
    [("sglang", "nixl"), ("vllm", "nixl"), ("vllm", "nixl-push"), ("vllm", "mooncake")],
)
async def test_both_legs_of_a_pair_name_their_rank_and_the_transfer_the_prefill_rank(protocol, connector):
    async with pair_of_ranks(protocol, connector=connector) as (prefill, decode, router):
        for _ in range(12):
            async with router.post() as response:
                assert response.status == 200, await response.text()
        await until(lambda: not any(map(any, router.load())), "loads of zero")
        for engine in (prefill, decode):
            await engine.wait_idle()
            counts = engine.counters()
            assert (counts["stranded"], counts["held"], counts["refused"]) == (0, 0, 0), counts
            told = {rank_told(request, protocol) for request in engine.requests}
            assert told == {0, 1}, "every rank was named"


async def test_a_number_for_all_engines_tells_of_those_that_do_not():
    knobs = {"pd": "vllm", "dp_size": 2, "tokens": 4}
    async with (
        SimulatedEngine(name="prefill", role="prefill", **knobs) as prefill,
        SimulatedEngine(name="decode", role="decode", **knobs) as decode,
        running_router(
            [],
            expect_healthy=0,
            pd={"protocol": "vllm", "prefill": [prefill.url], "decode": [decode.url]},
            dp_aware=True,
            dp_size=2,
        ) as router,
    ):
        candidates = router.server.pool.candidates
        await until(lambda: len(candidates(PREFILL)) == 2 and len(candidates(DECODE)) == 2, "two ranks of each")
        for _ in range(4):
            async with router.post() as response:
                assert response.status == 200, await response.text()
        for engine in (prefill, decode):
            assert {rank_told(request, "vllm") for request in engine.requests} == {0, 1}


def rank_told(request, protocol):
    if protocol == "vllm":
        return int(request.headers["x-data-parallel-rank"])
    return json.loads(request.body)["data_parallel_rank"]
