"""The OpenAPI document and what the admin API really does: each tested against the other."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from router_core.config import PolicySelection
from router_core.contract.errors import StartupError
from router_core.contract.worker import Worker
from router_core.control.app import create_control_app
from router_core.control.log_level import LogLevelHandlers
from router_core.control.openapi import openapi_document
from router_core.control.worker_form import FormError, read_form
from router_core.fleet.engine_client import EngineReply, EngineReplyError
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import WorkerRegistry
from router_core.traffic.paths import INFERENCE_PATHS
from router_core.traffic.stored_responses import PREFIX as STORED_RESPONSES


class Unreachable:
    """Engines nobody reaches, so that no test asks a made-up host."""

    async def ask(self, method: str, base_url: str, path: str, timeout_s: float) -> EngineReply:
        raise EngineReplyError(f"{method} {base_url}{path} failed")


async def no_models(base_url: str, timeout_s: float) -> list[dict[str, object]]:
    return []


async def render() -> tuple[bytes, str]:
    return b"", "text/plain"


async def refuse_policy(pool: str, selection: PolicySelection) -> None:
    raise StartupError([f"policy.name: {selection.name} is not installed"])


class PolicyFacts:
    """What a pool's policy tells of itself."""

    name = "round_robin"
    source = "in-house"
    is_quarantined = False


def admin_app(inference_paths: tuple[str, ...] = ()) -> web.Application:
    pool = WorkerPool("default", [Worker("http://10.0.0.1:8000", labels={"zone": "a"})])
    return create_control_app(
        [pool],
        fetch_models=no_models,
        render_metrics=render,
        is_draining=lambda: False,
        registry=WorkerRegistry(pool, wall_clock=lambda: 1700000000.0),
        engines=Unreachable(),
        policies=lambda: {"default": PolicyFacts()},
        replace_policy=refuse_policy,
        log_level=LogLevelHandlers(lambda: "info", lambda level: None),
        inference_paths=inference_paths,
    )


def test_every_route_is_described_and_nothing_else():
    paths = tuple(path.decode() for path in INFERENCE_PATHS)
    document = openapi_document(paths)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    stored = {each for each in described if each[1].startswith(STORED_RESPONSES.decode())}
    served = {
        (route.method, route.resource.canonical)
        for route in admin_app(paths).router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    assert {method for method, _ in stored} == {"GET", "DELETE", "POST"}
    assert described - stored == served
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))
    groups = {tag["name"] for tag in document["tags"]}
    assert groups == {tag for item in document["paths"].values() for each in item.values() for tag in each["tags"]}


def test_the_document_holds_no_loose_ends():
    text = json.dumps(openapi_document())
    schemas = openapi_document()["components"]["schemas"]
    references = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)


@pytest.mark.slow
@pytest.mark.async_timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
async def test_schemathesis_finds_nothing_in_the_admin_api(tmp_path):
    async with TestServer(admin_app()) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", str(server.make_url("/openapi.json"))),
            *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "15", "--seed", "7"),
            *("--generation-database", "none", "--no-color", "--continue-on-failure"),
            # A URL that fits the schema may still be no worker's: a name that no host has, a metadata service.
            # Engines that do not answer are a 5xx that the document knows; an unknown one fails another check.
            *("--exclude-checks", "positive_data_acceptance,not_a_server_error,ignored_auth,unsupported_method"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8000:]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = tuple(openapi_document()["components"]["schemas"]["WorkerForm"]["properties"])


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), JSON) | JSON)
def test_any_json_is_a_form_or_an_error_that_says_why(fields: object):
    reason = ""
    try:
        form, _ = read_form(json.dumps(fields).encode())
    except FormError as error:
        reason = str(error)
    else:
        assert all(isinstance(value, str) for value in form.labels_now({}).values())
        return
    assert reason
    assert "\n" not in reason


@given(st.binary(max_size=200))
def test_any_bytes_are_a_form_or_an_error(body: bytes):
    with contextlib.suppress(FormError):
        read_form(body)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"\n": None}, r"'\\n': unknown field"),
        ({"x" * 1000: 1}, r"'xxx.*\.\.\.: unknown field"),
        ({"cost": False}, "cost: "),
        ({"cost": "1"}, "cost: "),
        ({"priority": True}, "priority: "),
    ],
)
def test_what_fuzzing_found_stays_refused(fields: object, sentence: str):
    with pytest.raises(FormError, match=sentence):
        read_form(json.dumps(fields).encode())
