"""A traced request has a span with the decision in it, between its caller's and its worker's, sent by OTLP."""

from __future__ import annotations

import contextlib
import re

import pytest
from aiohttp import web

from router_core.contract.errors import StartupError
from router_core.observability.tracing import Tracing
from router_core.testing.simulated_engine import SimulatedEngine

from .pd_support import running_pair_router
from .support import running_router

pytest.importorskip("opentelemetry.sdk", reason="router-core[otel] is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans = []
        self.services = set()

    async def take(self, request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await request.read())
        for group in export.resource_spans:
            resource = attributes(group.resource.attributes)
            self.services.add(resource["service.name"])
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return web.Response()


@contextlib.asynccontextmanager
async def collector():
    app, found = web.Application(), Collector()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield found, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def attributes(items) -> dict:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in items}


def sent_parent(engine) -> str | None:
    return engine.requests[-1].headers.get("traceparent")


async def test_a_span_tells_who_was_picked_and_why_and_stands_between_caller_and_worker():
    async with collector() as (found, url), SimulatedEngine() as engine:
        async with running_router([engine], tracing={"endpoint": url, "service_name": "front"}) as router:
            headers = {"traceparent": PARENT, "tracestate": "a=b", "x-request-id": "mine"}
            async with router.post(headers=headers) as response:
                assert response.status == 200
                await response.read()
            seen = engine.requests[-1].headers
        (span,) = found.spans  # stopping the router sends what is left
    told = attributes(span.attributes)
    assert found.services == {"front"}
    assert span.name == "POST /v1/chat/completions"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, "00f067aa0ba902b7")
    assert seen.getall("traceparent") == [f"00-{TRACE}-{span.span_id.hex()}-01"]
    assert seen["tracestate"] == "a=b"
    assert told["router.worker"] == engine.url
    assert (told["router.policy"], told["router.attempt"], told["router.outcome"]) == ("round_robin", 1, "success")
    assert (told["router.request_id"], told["http.response.status_code"]) == ("mine", 200)
    assert told["router.reason"]
    assert told["router.time_to_first_token"] > 0
    assert told["gen_ai.usage.input_tokens"] > 0
    assert [event.name for event in span.events] == ["placed", "attempt ended"]


async def test_a_path_that_nobody_knows_makes_no_name_of_a_span():
    paths = "/made/up", "/v1/responses/resp_made-up", "/v1/responses/resp_1/cancel", "/v1/responses/a/b/c"
    async with (
        collector() as (found, url),
        SimulatedEngine() as engine,
        running_router([engine], tracing={"endpoint": url}, proxy_unknown_paths=True) as router,
    ):
        for path in paths:
            async with router.get(path) as response:
                await response.read()
    spans = [(span.name, attributes(span.attributes)) for span in found.spans]
    assert [(name, told["url.path"], told.get("http.route")) for name, told in spans] == [
        ("GET", "/made/up", None),
        ("GET /v1/responses/{id}", "/v1/responses/resp_made-up", "/v1/responses/{id}"),
        ("GET /v1/responses/{id}/cancel", "/v1/responses/resp_1/cancel", "/v1/responses/{id}/cancel"),
        ("GET", "/v1/responses/a/b/c", None),
    ]


async def test_each_attempt_is_an_event_and_a_failure_is_an_error():
    async with collector() as (found, url), SimulatedEngine() as gone:
        async with running_router([gone], tracing={"endpoint": url}) as router:
            await gone.stop()
            async with router.post() as response:
                assert response.status == 502
        (span,) = found.spans
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert attributes(span.attributes)["router.outcome"] == "error"


async def test_a_request_whose_caller_does_not_trace_is_passed_on_untouched():
    given = PARENT[:-2] + "00"
    async with (
        collector() as (found, url),
        SimulatedEngine() as engine,
        running_router([engine], tracing={"endpoint": url}) as router,
    ):
        async with router.post(headers={"traceparent": given}) as response:
            assert response.status == 200
        assert sent_parent(engine) == given
    assert found.spans == []


@pytest.mark.parametrize("settings", [{}, {"tracing": {"endpoint": "http://127.0.0.1:9", "sample_ratio": 0}}])
async def test_without_tracing_or_sampled_out_nothing_is_added(settings):
    async with SimulatedEngine() as engine, running_router([engine], **settings) as router:
        await router.ask()
        assert sent_parent(engine) is None


async def test_a_request_without_a_trace_begins_one():
    async with collector() as (found, url), SimulatedEngine() as engine:
        async with running_router([engine], tracing={"endpoint": url}) as router:
            await router.ask()
            parent = sent_parent(engine)
        (span,) = found.spans
    assert re.fullmatch(rf"00-{span.trace_id.hex()}-{span.span_id.hex()}-0[13]", parent)
    assert span.parent_span_id == b""


async def test_a_missing_library_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartupError, match=r"pip install 'router-core\[otel\]'"):
        Tracing(endpoint="http://127.0.0.1:4318/v1/traces", route_of=lambda path: None)


@pytest.mark.parametrize(("protocol", "role"), [("sglang", "decode"), ("sglang", "prefill"), ("vllm", "prefill")])
async def test_the_span_of_a_pair_that_failed_has_the_outcome_of_the_leg_that_failed(protocol, role):
    async with (
        collector() as (found, url),
        SimulatedEngine(name="p", role="prefill", pd=protocol) as prefill,
        SimulatedEngine(name="d", role="decode", pd=protocol) as decode,
    ):
        (prefill if role == "prefill" else decode).status = 500
        async with running_pair_router([prefill], [decode], protocol=protocol, tracing={"endpoint": url}) as router:
            async with router.post() as response:
                assert response.status in (500, 502)
            await router.legs()
        (span,) = found.spans
    assert attributes(span.attributes)["router.outcome"] == "error"
