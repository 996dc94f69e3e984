"""A request has one name from the client to the worker and back, and tells on demand who served it and why."""

from __future__ import annotations

import re

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.testing.scripted_server import Read, ScriptedServer, Send
from router_core.testing.simulated_engine import SimulatedEngine

from .support import CHAT, RawClient, chat, request_bytes, running_router

BODY = b'{"choices":[]}'
HEALTH = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
OWN_NAME = re.compile(r"req-[0-9a-f]{12}-[0-9a-f]+")


def answer(*lines: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in lines)
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(BODY), BODY)


def scripted(*lines: bytes, requests: int = 2) -> ScriptedServer:
    """A worker whose first connection is its health check."""
    return ScriptedServer(lambda index: [Read(), Send(answer(*lines))] * requests if index else [Read(), Send(HEALTH)])


def fields_of(head: bytes, name: bytes) -> list[bytes]:
    lines = [line.partition(b":") for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")]
    return [value.strip() for key, _, value in lines if key.lower() == name]


def names_sent(worker: ScriptedServer) -> list[list[bytes]]:
    """Return what the worker saw in `x-request-id` of each inference request."""
    return [fields_of(request, b"x-request-id") for request in worker.requests if request.startswith(b"POST")]


async def ask(router, **headers):
    async with router.post(headers={name.replace("_", "-"): value for name, value in headers.items()}) as response:
        assert response.status == 200, await response.text()
        await response.read()
        return response.headers


async def test_a_request_without_a_name_gets_one_that_worker_and_client_see():
    async with scripted() as worker, running_router([worker]) as router:
        names = [(await ask(router)).getall("x-request-id") for _ in range(2)]
    assert [[name.decode() for name in each] for each in names_sent(worker)] == names
    assert all(OWN_NAME.fullmatch(name) for each in names for name in each)
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"x_request_id": "a/1"}, "a/1"),
        ({"x_correlation_id": "b"}, "b"),
        ({"request_id": "d", "x_trace_id": "c"}, "c"),
        ({"request_id": "d", "x_request_id": "a"}, "a"),
        ({"request_id": "d", "x_request_id": "not one name"}, "d"),
    ],
)
async def test_the_name_is_the_first_that_the_client_gave(given, name):
    async with scripted() as worker, running_router([worker]) as router:
        headers = await ask(router, **given)
    assert headers.getall("x-request-id") == [name]
    assert names_sent(worker) == [[name.encode()]]


async def test_other_headers_may_name_a_request():
    async with scripted() as worker, running_router([worker], request_id_headers=["X-Job"]) as router:
        assert (await ask(router, x_job="7", x_request_id="mine"))["x-request-id"] == "7"
        assert names_sent(worker) == [[b"7"]]


@pytest.mark.parametrize("name", [b"a b", b"x" * 257, b"\xff\xfe", b"a\tb"], ids=["space", "long", "not-ascii", "tab"])
async def test_a_name_that_is_no_name_is_replaced_everywhere(name):
    head, _, body = request_bytes().partition(b"\r\n\r\n")
    async with scripted() as worker, running_router([worker]) as router, await RawClient.connect(router.url) as client:
        client.writer.write(head + b"\r\nX-Request-Id: " + name + b"\r\n\r\n" + body)
        status, headers = await client.read_head()
    assert status == 200
    assert OWN_NAME.fullmatch(headers["x-request-id"])
    assert names_sent(worker) == [[headers["x-request-id"].encode()]]


async def test_the_workers_own_name_for_it_stays_behind():
    async with scripted(b"X-Request-Id: the-workers", b"x-other: kept") as worker, running_router([worker]) as router:
        headers = await ask(router, x_request_id="mine")
    assert headers.getall("x-request-id") == ["mine"]
    assert headers["x-other"] == "kept"


async def test_the_routers_own_answers_carry_the_name():
    async with running_router([], policy="round_robin") as router:
        async with router.post(headers={"x-request-id": "mine"}) as response:
            assert (response.status, response.headers["x-request-id"]) == (503, "mine")
        async with router.get("/health", headers={"x-request-id": "mine"}) as response:
            assert (response.status, response.headers["x-request-id"]) == (200, "mine")


async def test_many_requests_on_one_connection_have_names_of_their_own():
    async with (
        SimulatedEngine() as engine,
        running_router([engine]) as router,
        await RawClient.connect(router.url) as client,
    ):
        names = set()
        for _ in range(5):
            client.send()
            status, headers = await client.read_head()
            assert status == 200
            await client.reader.readexactly(int(headers["content-length"]))
            names.add(headers["x-request-id"])
        assert len(names) == 5
        assert {completion.request.id for completion in router.record.completed} == names


# --- who served it ---


async def test_headers_tell_worker_policy_and_reason():
    async with SimulatedEngine() as engine, running_router([engine], decision_headers="always") as router:
        headers = await ask(router)
    assert headers["x-router-worker"] == engine.url
    assert headers["x-router-policy"] == "round_robin"
    assert headers["x-router-reason"]


async def test_headers_on_request_go_to_those_who_ask():
    async with SimulatedEngine() as engine, running_router([engine], decision_headers="on_request") as router:
        assert "x-router-worker" not in await ask(router)
        assert "x-router-worker" not in await ask(router, x_router_debug="0")
        assert (await ask(router, x_router_debug="1"))["x-router-worker"] == engine.url


async def test_no_headers_by_default_whatever_the_client_says():
    async with SimulatedEngine() as engine, running_router([engine]) as router:
        assert not [name for name in await ask(router, x_router_debug="1") if name.lower().startswith("x-router")]


async def test_after_another_attempt_the_headers_tell_of_that_one():
    async with (
        SimulatedEngine(name="good") as good,
        SimulatedEngine(name="gone") as gone,
        running_router([good, gone], decision_headers="always") as router,
    ):
        await gone.stop()
        for _ in range(2):
            headers = await ask(router)
            assert headers.getall("x-router-worker") == [good.url]


async def test_a_reason_cannot_smuggle_a_header():
    async with (
        SimulatedEngine() as engine,
        running_router([engine], policy=f"{__name__}:Talkative", decision_headers="always") as router,
    ):
        headers = await ask(router)
    assert "x-evil" not in headers
    assert headers["x-router-reason"] == "a??x-evil: 1"


async def test_a_stream_carries_name_and_decision_in_its_head():
    async with (
        SimulatedEngine() as engine,
        running_router([engine], decision_headers="always") as router,
        router.post(CHAT, chat(stream=True)) as response,
    ):
        assert OWN_NAME.fullmatch(response.headers["x-request-id"])
        assert response.headers["x-router-worker"] == engine.url
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


class Talkative:
    """Explains itself with a line break."""

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config) -> None:
        pass

    @hookimpl
    def select_single(self, workers, request):
        request.explain("a\r\nx-evil: 1")
        return workers[0]
