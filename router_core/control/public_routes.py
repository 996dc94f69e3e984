"""The paths for everybody else: what the router answers itself, and what it hands to workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from router_core.control.operation import AnswerKind, Operation

PROBES = (
    Operation(
        "GET",
        "/health",
        "liveness",
        "Tell that the process answers; with `?verbose` how it is, which wants a key with the scope `admin`.",
        {200: "any"},
        group="probes",
        name="health",
    ),
    Operation("GET", "/liveness", "liveness", "Tell that the process answers.", {200: "any"}, group="probes"),
    Operation(
        "GET",
        "/readiness",
        "readiness",
        "Tell whether a request would find a worker.",
        {200: "object", 503: "object"},
        group="probes",
    ),
)
"""Answered by `HealthHandlers`."""

MODELS = (
    Operation(
        "GET",
        "/v1/models",
        "list_models",
        "List the models, adapters and aliases that can be had.",
        {200: "object", 503: "error"},
        group="models",
    ),
    Operation(
        "GET",
        "/v1/models/{model}",
        "get_model",
        "Tell of one of them.",
        {200: "object", 404: "error", 503: "error"},
        group="models",
    ),
)
"""Answered by `ModelHandlers`."""

METRICS = Operation(
    "GET",
    "/metrics",
    "render",
    "Tell the router's metrics, as Prometheus reads them.",
    {200: "text"},
    group="metrics",
    name="router_metrics",
)
OPENAPI = Operation("GET", "/openapi.json", "openapi", "Give this document.", {200: "object"})

_REFUSALS = (400, 404, 408, 413, 429, 500, 502, 503, 504)
_STORED: Mapping[int, AnswerKind] = {200: "any", 404: "error", 502: "error", 504: "error"}
_STORED_RESPONSES = (
    Operation(
        "GET",
        "/v1/responses/{response}",
        "get_response",
        "Have the worker that made a response give it again.",
        _STORED,
        group="inference",
    ),
    Operation(
        "DELETE",
        "/v1/responses/{response}",
        "delete_response",
        "Have the worker that made a response forget it.",
        _STORED,
        group="inference",
    ),
    Operation(
        "POST",
        "/v1/responses/{response}/cancel",
        "cancel_response",
        "Have the worker that makes a response in the background cease.",
        _STORED,
        group="inference",
    ),
    Operation(
        "GET",
        "/v1/responses/{response}/input_items",
        "list_input_items",
        "Have the worker that made a response list what it was made from.",
        _STORED,
        group="inference",
    ),
)


def inference(paths: Iterable[str]) -> Iterator[Operation]:
    """Yield what workers answer: a POST to each of these paths, and what may be asked of a stored response."""
    for path in paths:
        yield Operation(
            "POST",
            path,
            "",
            "Have a worker of the policy's choice answer; body and answer are as its own API has them.",
            {200: "any", **dict.fromkeys(_REFUSALS, "error")},
            takes="audio" if "/audio/" in path else "inference",
            group="inference",
            name=path.strip("/").replace("/", "_"),
        )
        if path == "/v1/responses":
            yield from _STORED_RESPONSES
