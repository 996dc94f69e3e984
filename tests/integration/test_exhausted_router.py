"""The router itself has no file left to open: its clients are told so, and no worker is blamed."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import re
import resource

import pytest

from .router_process import RouterProcess, listening_router
from .support import STATE_TIMEOUT_S, RawClient

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process: Linux alone")

EXHAUSTED = 503, "router_exhausted", "1"
QUICK_CHECKS = {"HEALTH__INTERVAL_S": "0.05", "HEALTH__FAILURE_THRESHOLD": "1"}


@contextlib.contextmanager
def no_file_left(router: RouterProcess):
    """Let the router open no further file; those it has stay."""
    before = resource.prlimit(router.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(router.pid, resource.RLIMIT_NOFILE, before)


async def accepted(client: RawClient) -> None:
    """Wait until the router has taken the connection."""
    client.writer.write(b"GET /health HTTP/1.1\r\nhost: router\r\n\r\n")
    assert (await client.read_answer())[0] == 200


async def asked(client: RawClient) -> tuple[int, str, str | None]:
    """Return status, code and Retry-After of the answer to a request."""
    client.send()
    return await answered(client)


async def answered(client: RawClient) -> tuple[int, str, str | None]:
    status, headers = await client.read_head()
    body = json.loads(await client.reader.readexactly(int(headers["content-length"])))
    return status, body.get("error", {}).get("code", ""), headers.get("retry-after")


async def figures(client: RawClient, name: str) -> list[float]:
    client.writer.write(b"GET /metrics HTTP/1.1\r\nhost: router\r\n\r\n")
    _, body = await client.read_answer()
    return [
        float(value) for value in re.findall(rf"^router_core_{name}(?:{{.*}})? (\S+)$", body.decode(), re.MULTILINE)
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # a name is looked up, which takes files as well
async def test_a_router_without_files_says_so_and_blames_no_worker(simulated_engine, host):
    async with simulated_engine() as engine:
        url = engine.url.replace("127.0.0.1", host)
        async with (
            listening_router(url, settings=QUICK_CHECKS) as router,
            await RawClient.connect(router.url) as client,
        ):
            await accepted(client)
            with no_file_left(router):
                assert {await asked(client) for _ in range(25)} == {EXHAUSTED}
                await router.read_until("workers cannot be checked")
                assert await figures(client, "worker_health") == [1]
                assert await figures(client, "worker_circuit_state") == [0]
                assert await figures(client, "worker_requests_active") == [0]
                assert [times for times in await figures(client, "upstream_shortages_total") if times] == [25]
            await router.read_until("workers can be checked again")
            assert await asked(client) == (200, "", None)
        said = [line for line in router.lines if "no connection to" in line]
        assert len(said) == 1
        assert f"no connection to {url}: the router has as many files open as it may; raise that (ulimit -n)" in said[0]
        assert not [line for line in router.lines if "unhealthy" in line or "circuit" in line]


async def test_a_router_with_few_files_serves_as_many_clients_as_it_has_files_for(simulated_engine):
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, files=64) as router,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(await RawClient.connect(router.url)) for _ in range(100)]
        for client in clients:
            client.send()
        answers = collections.Counter(await asyncio.gather(*map(answered_or_cut, clients)))
        assert set(answers) <= {(200, ""), (503, "too_many_connections"), None}
        assert answers[200, ""] >= 15
        assert sum("only 64 files may be open" in line for line in router.lines) == 1
        for client in clients:
            client.hang_up()
        await until_served(router.url)


async def answered_or_cut(client: RawClient) -> tuple[int, str] | None:
    """Return status and code of an answer, None if the connection was cut."""
    try:
        return (await answered(client))[:2]
    except (ConnectionError, asyncio.IncompleteReadError):
        return None


async def until_served(url: str) -> None:
    """Return once a new client is."""
    answer = None
    async with asyncio.timeout(STATE_TIMEOUT_S):
        while answer != (200, ""):
            async with await RawClient.connect(url) as client:
                client.send()
                answer = await answered_or_cut(client)


async def test_a_pair_whose_legs_cannot_be_sent_blames_neither_worker(simulated_engine):
    pd = {"PD__PROTOCOL": "sglang"} | QUICK_CHECKS
    async with simulated_engine() as prefill, simulated_engine() as decode:
        settings = pd | {"PD__PREFILL": prefill.url, "PD__DECODE": decode.url}
        async with (
            listening_router(settings=settings) as router,
            await RawClient.connect(router.url) as client,
        ):
            for _ in range(2):
                await router.read_until(" is healthy")
            await accepted(client)
            with no_file_left(router):
                assert {await asked(client) for _ in range(12)} == {EXHAUSTED}
                assert await figures(client, "worker_health") == [1, 1]
                assert await figures(client, "worker_circuit_state") == [0, 0]
                assert await figures(client, "worker_requests_active") == [0, 0]


async def test_a_stored_response_that_cannot_be_fetched_is_not_its_workers_fault(simulated_engine):
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, settings={"LIMITS__UPSTREAM_IDLE_TIMEOUT_S": "0.001"}) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send({"model": "simulated-model", "input": "Hello."}, "/v1/responses")
        _, body = await client.read_answer()
        request = f"GET /v1/responses/{json.loads(body)['id']} HTTP/1.1\r\nhost: router\r\n\r\n".encode()
        with no_file_left(router):
            answer = 200, "", None
            while answer[0] == 200:  # as long as the connection of the request before is not too old
                client.writer.write(request)
                answer = await answered(client)
        assert answer == EXHAUSTED


@pytest.mark.parametrize("path", ["/get_model_info", "/engine_metrics", "/health_generate"])
async def test_what_only_an_engine_knows_is_not_denied_in_its_name(simulated_engine, path):
    async with (
        simulated_engine() as engine,
        listening_router(engine.url) as router,
        await RawClient.connect(router.url) as client,
    ):
        await accepted(client)
        with no_file_left(router):
            client.writer.write(f"GET {path} HTTP/1.1\r\nhost: router\r\n\r\n".encode())
            assert await answered(client) == EXHAUSTED
