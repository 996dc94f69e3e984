"""A stored response is asked of the worker that made it, and of nobody else."""

from __future__ import annotations

import orjson
import pytest

from .support import running_router

BODY = {"model": "simulated-model", "input": "Remember me."}


async def make_response(router, **fields):
    """Return the id of a new response and its maker's name."""
    async with router.post("/v1/responses", BODY | fields) as response:
        assert response.status == 200
        data = await response.read()
    if fields.get("stream"):
        data = data.partition(b"data: ")[2].partition(b"\n")[0]
        return orjson.loads(data)["response"]["id"], response.headers["x-simulated-engine"]
    return orjson.loads(data)["id"], response.headers["x-simulated-engine"]


async def request(router, method, path):
    async with router.session.request(method, router.url + path) as response:
        return response.status, response.headers.get("x-simulated-engine"), await response.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_get_and_delete_go_to_the_maker(simulated_engines, stream):
    async with simulated_engines(3) as engines, running_router(engines) as router:
        made = [await make_response(router, stream=stream) for _ in range(6)]
        assert {maker for _, maker in made} == {"a", "b", "c"}
        for response_id, maker in reversed(made):
            status, by, document = await request(router, "GET", f"/v1/responses/{response_id}")
            assert (status, by, document["id"], document["status"]) == (200, maker, response_id, "completed")
            assert (await request(router, "GET", f"/v1/responses/{response_id}/input_items"))[:2] == (200, maker)
        for response_id, maker in made:
            status, by, document = await request(router, "DELETE", f"/v1/responses/{response_id}")
            assert (status, by, document["deleted"]) == (200, maker, True)
        await router.settled(6)  # asking for what is stored is no work of the policy's


async def test_cancel_reaches_the_maker_while_the_answer_is_on_its_way(simulated_engines):
    async with (
        simulated_engines(2, tokens=100_000, token_interval_s=0.01) as engines,
        running_router(engines) as router,
    ):
        for _ in range(2):
            async with router.post("/v1/responses", BODY | {"stream": True}) as response:
                line = await response.content.readuntil(b"\n\n")
                response_id = orjson.loads(line.partition(b"data: ")[2])["response"]["id"]
                maker = response.headers["x-simulated-engine"]
                status, by, document = await request(router, "POST", f"/v1/responses/{response_id}/cancel")
                assert (status, by, document["status"]) == (200, maker, "cancelled")
                response.close()
        outcomes = await router.settled(2)
        assert {outcome.status for outcome in outcomes} == {"cancelled"}


async def test_a_conversation_goes_on_at_the_worker_that_made_its_last_response(simulated_engines):
    async with simulated_engines(3) as engines, running_router(engines) as router:
        response_id, maker = await make_response(router)
        for _ in range(4):
            response_id, by = await make_response(router, previous_response_id=response_id)
            assert by == maker
        await router.settled(5)  # each was placed by the policy, among one candidate
        _, anywhere = await make_response(router, previous_response_id="resp_unknown")
        assert anywhere in {"a", "b", "c"}


async def test_an_unknown_id_is_404_from_the_router(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
            status, by, document = await request(router, method, f"/v1/responses/resp_unknown{path}")
            assert (status, by) == (404, None)
            assert document["error"]["code"] == "response_not_found"
        assert engine.connections == 2  # the health check and the list of models


async def test_a_workers_responses_are_forgotten_when_it_leaves(simulated_engines):
    async with simulated_engines(2) as engines, running_router(engines) as router:
        made = dict([await make_response(router) for _ in range(2)])
        leaving = next(engine for engine in engines if engine.name == "a")
        router.server.pool.remove(leaving.url)
        for response_id, maker in made.items():
            status, by, _ = await request(router, "GET", f"/v1/responses/{response_id}")
            assert (status, by) == ((404, None) if maker == "a" else (200, "b"))


async def test_a_dead_maker_is_502(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        response_id, _ = await make_response(router)
        await engine.stop()
        status, _, document = await request(router, "GET", f"/v1/responses/{response_id}")
        assert (status, document["error"]["code"]) == (502, "upstream_connection_failed")


async def test_an_id_that_arrives_in_pieces_is_known_once_the_answer_is_whole(simulated_engines):
    async with simulated_engines(2, drip_bytes=200) as engines, running_router(engines) as router:
        response_id, maker = await make_response(router)
        assert (await request(router, "GET", f"/v1/responses/{response_id}"))[:2] == (200, maker)
