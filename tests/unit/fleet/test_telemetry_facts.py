from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from router_core.fleet.engine_client import EngineClient
from router_core.fleet.engine_facts import EngineFacts
from router_core.testing.simulated_engine import SimulatedEngine

BASE = {"id": "base", "owned_by": "vllm", "root": "meta/base", "parent": None}
LORA = {"id": "sql-lora", "owned_by": "vllm", "root": "/adapters/sql", "parent": "base"}


@asynccontextmanager
async def engine(answers: dict[str, Any]) -> AsyncIterator[str]:
    """An engine that answers some paths: JSON, raw text, or a status."""

    async def handler(request: web.Request) -> web.Response:
        answer = answers.get(request.path, 404)
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param(
            {"/v1/models": {"data": [BASE, LORA]}},
            EngineFacts("vllm", ("base",), {"sql-lora": "base"}),
            id="vllm with an adapter",
        ),
        pytest.param(
            {"/v1/models": {"data": [BASE]}, "/server_info": {"vllm_config": "..."}},
            EngineFacts("vllm", ("base",)),
            id="vllm in development mode",
        ),
        pytest.param(
            {
                "/v1/models": {"data": [{"id": "m", "owned_by": "sglang", "root": "m"}]},
                "/server_info": {"model_path": "m", "dp_size": 4},
            },
            EngineFacts("sglang", ("m",), {}, 4),
            id="sglang",
        ),
        pytest.param(
            {"/get_server_info": {"model_path": "/m", "served_model_name": "m", "dp_size": 1}},
            EngineFacts("sglang", ("m",), {}, 1),
            id="old sglang",
        ),
        pytest.param({"/get_model_info": {"model_path": "/m"}}, EngineFacts("sglang", ("/m",)), id="very old sglang"),
        pytest.param(
            {
                "/v1/models": 500,
                "/server_info": "no JSON",
                "/get_server_info": [1],
                "/model_info": {"model_path": None},
            },
            EngineFacts("sglang"),
            id="nonsense",
        ),
        pytest.param(
            {"/v1/models": {"data": [{"id": "a"}, {"id": "a"}, 3]}, "/server_info": {"dp_size": True}},
            EngineFacts(None, ("a",)),
            id="somebody else",
        ),
        pytest.param({}, EngineFacts(), id="nothing at all"),
    ],
)
async def test_what_engines_tell_of_themselves(answers: dict[str, Any], expected: EngineFacts) -> None:
    async with engine(answers) as url, EngineClient() as client:
        assert await client.fetch_server_info(url, 5) == expected


async def test_an_engine_that_is_not_there_has_no_facts() -> None:
    async with EngineClient() as client:
        assert await client.fetch_server_info("http://127.0.0.1:9", 5) == EngineFacts()


async def test_a_simulated_engine_tells_its_models() -> None:
    async with SimulatedEngine(models=("m1", "m2")) as one, EngineClient() as client:
        assert (await client.fetch_server_info(one.url, 5)).models == ("m1", "m2")
