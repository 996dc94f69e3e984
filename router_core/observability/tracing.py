"""A span for each inference request, by OpenTelemetry. Needs the extra `otel`; without it nothing here is imported.

The span continues the caller's trace (W3C Trace Context) and is the parent of the worker's: a request that is traced
reaches the worker with the router's `traceparent`. One that is not traced keeps its headers as they came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from router_core.contract.errors import StartupError
from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.observability.last_outcome import last_outcome
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_FIELDS = ("traceparent", "tracestate")
_WHOLE = frozenset({None, Ending.COMPLETE})


class Tracing:
    """Begins the spans and sends them, from a thread of its own.

    Args:
        exporter: Where spans go; None sends them to `endpoint`.
        endpoint: A collector's address for OTLP over HTTP.
        sample_ratio: Share of the requests without a trace of their own that get one.
        service_name: Whose spans these are.
        route_of: From a path to the route it is one of, such as `/v1/responses/{response_id}`; None if it is unknown.
            Spans are named by it, never by the path: clients can make up any number of those.

    Raises:
        StartupError: If OpenTelemetry is not installed.
    """

    def __init__(
        self,
        exporter: SpanExporter | None = None,
        *,
        endpoint: str | None = None,
        sample_ratio: float = 1.0,
        service_name: str = "router-core",
        route_of: Callable[[bytes], str | None],
    ) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation import set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise StartupError(
                [f"tracing.endpoint: {error}; install it: pip install 'router-core[otel]', or leave endpoint out"]
            ) from error
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create({"service.name": service_name}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("router_core")
        self._propagator = TraceContextTextMapPropagator()
        self._in_context: Callable[..., Any] = set_span_in_context  # Any: the library's own context
        self._server = SpanKind.SERVER
        self._route_of = route_of

    def follow(self, exchange: Exchange) -> RequestSpan | None:
        """Begin the span of a request, if it is to be traced."""
        head = exchange.head
        given = {name: head.fields.get(name.encode()) for name in _FIELDS}
        carrier = {name: value.decode("latin-1") for name, value in given.items() if value is not None}
        method, path = head.method.decode("ascii"), head.path.decode("ascii", "backslashreplace")
        route = self._route_of(head.path)
        name = method if route is None else f"{method} {route}"
        span = self._tracer.start_span(name, self._propagator.extract(carrier) if carrier else None, self._server)
        if not span.is_recording():
            return None
        span.set_attributes({"http.request.method": method, "url.path": path, "router.request_id": exchange.request_id})
        if route is not None:
            span.set_attribute("http.route", route)
        sent: dict[str, str] = {}
        self._propagator.inject(sent, self._in_context(span))
        # A tracestate of the caller's that the library does not pass on must not go on beside the new parent.
        changes = {name.encode(): sent[name].encode() if name in sent else None for name in _FIELDS}
        exchange.head = head.changed(changes)
        return RequestSpan(span)

    def stop(self) -> None:
        """Send what is left; takes a while if the collector does not answer."""
        self._provider.shutdown()


class RequestSpan:
    """The span of one request; each attempt is an event in it, and the last one its attributes."""

    __slots__ = ("_attempt", "_outcome", "_span", "_workers")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._attempt = 0
        self._outcome: RequestOutcome | None = None
        self._workers: list[str] = []

    def placed(self, exchange: Exchange, worker: Worker, request: RoutingRequest, policy: str) -> None:  # noqa: ARG002
        """Note the decision."""
        if request.attempt != self._attempt:
            self._attempt, self._workers = request.attempt, []
        self._workers.append(worker.url)
        reason = request.reason or "unexplained"
        self._span.set_attributes(
            {
                "router.policy": policy,
                "router.worker": ",".join(self._workers),
                "router.reason": reason,
                "router.attempt": request.attempt,
            }
        )
        decision: dict[str, str | int] = {
            "router.worker": worker.url,
            "router.reason": reason,
            "router.attempt": request.attempt,
        }
        self._span.add_event("placed", decision)

    def attempt_ended(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:  # noqa: ARG002
        """Note the outcome; of a pair's, the leg's that failed."""
        span, leg = self._span, outcome.leg.value
        span.add_event(
            "attempt ended",
            {
                "router.worker": worker.url,
                "router.outcome": outcome.status.value,
                "router.leg": leg,
                "router.attempt": outcome.attempt,
            },
        )
        self._outcome = last_outcome(self._outcome, outcome)
        figures = {
            "router.outcome": self._outcome.status.value,
            "router.time_to_first_token": outcome.ttft_s,
            "router.cached_tokens": outcome.cached_tokens,
            "gen_ai.usage.input_tokens": outcome.prompt_tokens,
            "gen_ai.usage.output_tokens": outcome.completion_tokens,
        }
        span.set_attributes({name: value for name, value in figures.items() if value is not None})

    def on_over(self, exchange: Exchange, ending: Ending | None) -> None:
        """End the span."""
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        if exchange.status is not None:
            span.set_attribute("http.response.status_code", exchange.status)
        is_broken = ending not in _WHOLE or exchange.status is None
        if is_broken or exchange.status is None or exchange.status >= 500:
            if ending is not None:
                span.set_attribute("error.type", ending.name.lower())
            span.set_status(Status(StatusCode.ERROR, exchange.error or None))
        span.end()
