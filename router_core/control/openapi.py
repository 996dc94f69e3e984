"""The OpenAPI document, made from the routes and from the forms that check what is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from router_core.config import PolicySelection
from router_core.control.admin_routes import OPERATIONS
from router_core.control.errors import Handler
from router_core.control.health import json_response
from router_core.control.operation import AnswerKind, Group, Operation
from router_core.control.public_routes import METRICS, MODELS, OPENAPI, PROBES, inference
from router_core.control.worker_form import WITHOUT_EFFECT, WorkerForm

Json = dict[str, Any]  # Any: JSON

_TEXT: Json = {"type": "string"}
_URL: Json = {"type": "string", "pattern": r"^https?://[^/?#@\s]+/?$", "examples": ["http://10.0.0.4:8000"]}
_JSON_KINDS: dict[AnswerKind, Json] = {
    "accepted": {"$ref": "#/components/schemas/Accepted"},
    "admin_error": {"$ref": "#/components/schemas/AdminError"},
    "error": {"$ref": "#/components/schemas/Error"},
    "worker": {"$ref": "#/components/schemas/Worker"},
    "worker_list": {"$ref": "#/components/schemas/WorkerList"},
    "pool": {"$ref": "#/components/schemas/Pool"},
    "pool_list": {"$ref": "#/components/schemas/PoolList"},
    "log_level": {"$ref": "#/components/schemas/LogLevel"},
    "object": {"type": "object"},
    "any": {},
}
_FORMS = {"worker": "WorkerForm", "policy": "PolicySelection", "log_level": "LogLevel"}
_NAMED = {
    "id": "The worker's id, or its URL, percent-encoded.",
    "name": "The pool's name: `default`, or a model's.",
    "model": "The model's name, which may hold slashes.",
    "response": "The response's id, as its maker gave it.",
}
_GROUPS: dict[Group, str] = {
    "inference": "Answered by workers. Where API keys are set, each wants one with the scope `inference`.",
    "models": "Wants any key, where keys are set; `auth.open_paths` may open the list.",
    "metrics": "Wants a key with the scope `metrics` or `admin`, where keys are set; `auth.open_paths` may open it.",
    "probes": "For supervisors and balancers. Wants no key.",
    "administration": "Wants a key with the scope `admin`, where keys are set and `auth.open_paths` does not open it. "
    "`admin_port` moves it elsewhere.",
}
_IN_WORDS = {
    200: "Done.",
    202: "Accepted.",
    206: "Some workers have, some have not.",
    400: "What was sent does not fit; `error` says why.",
    404: "There is nothing of this name.",
    408: "It waited too long for its turn, or was sent too slowly.",
    409: "The URL is registered already; `Location` names it.",
    413: "The body is larger than `limits.max_body_bytes`.",
    429: "The router or the worker is busy; `Retry-After` says how long.",
    500: "Something failed that should not have.",
    502: "The worker could not be asked.",
    503: "No worker is available, or one could not.",
    504: "The worker did not answer in time.",
}


def openapi_handler(inference_paths: Iterable[str]) -> Handler:
    """Return a handler that answers with the document."""
    document = openapi_document(inference_paths)

    async def answer(request: web.Request) -> web.Response:  # noqa: ARG001  # a handler takes the request
        return json_response(document)

    return answer


def openapi_document(inference_paths: Iterable[str] = ()) -> Json:
    """Return the document, OpenAPI 3.1.

    Args:
        inference_paths: Paths whose POST workers answer.
    """
    paths: dict[str, Json] = {}
    for operation in (*inference(inference_paths), *MODELS, METRICS, *PROBES, *OPERATIONS, OPENAPI):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "router-core",
            "version": "1",
            "description": "All that the router answers, and all that it hands to workers. Tags tell who it is for.",
        },
        "tags": [{"name": name, "description": text} for name, text in _GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "operationId": operation.name or operation.handler,
        "tags": [operation.group],
        "summary": operation.summary,
        "responses": {str(status): _answer(status, kind) for status, kind in operation.answers.items()},
    }
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {**_TEXT, "minLength": 1}}
        for name, text in _NAMED.items()
        if f"{{{name}}}" in operation.path
    ]
    if operation.takes_url:
        parameters.append({"name": "url", "in": "query", "required": True, "schema": _URL})
    if parameters:
        described["parameters"] = parameters
    if operation.group == "probes":
        described["security"] = []
    if operation.takes in ("inference", "audio"):
        media = "multipart/form-data" if operation.takes == "audio" else "application/json"
        described["requestBody"] = {"required": True, "content": {media: {"schema": {"type": "object"}}}}
    elif operation.takes is not None:
        schema: Json = {"$ref": f"#/components/schemas/{_FORMS[operation.takes]}"}
        if operation.path == "/workers":
            schema = {"allOf": [schema, {"required": ["url"], "properties": {"url": _URL}}]}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _answer(status: int, kind: AnswerKind) -> Json:
    answer: Json = {"description": _IN_WORDS[status]}
    if kind == "text":
        answer["content"] = {"text/plain": {"schema": _TEXT}}
    elif kind == "any":
        answer["content"] = {"*/*": {}}
    else:
        answer["content"] = {"application/json": {"schema": _JSON_KINDS[kind]}}
    if status == 202 and kind == "accepted":
        answer["headers"] = {"Location": {"schema": _TEXT, "description": "The new worker's path."}}
    return answer


def _schemas() -> dict[str, Json]:
    form = WorkerForm.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas: dict[str, Json] = form.pop("$defs", {})
    form["properties"]["url"] = {"anyOf": [_URL, {"type": "null"}]}
    form["properties"] |= {
        name: {"description": "Other gateways take it; it has no effect here."} for name in sorted(WITHOUT_EFFECT)
    }
    schemas["WorkerForm"] = form
    schemas["Worker"] = _object(
        id=_TEXT,
        url=_TEXT,
        model_id=_TEXT,
        models={"type": "array", "items": _object(id=_TEXT)},
        priority={"type": "integer"},
        cost={"type": "number"},
        worker_type={"enum": ["regular", "prefill", "decode"]},
        status={"enum": ["registering", "ready", "unhealthy", "draining"]},
        is_healthy={"type": "boolean"},
        is_draining={"type": "boolean"},
        load={"type": "integer"},
        labels={"type": "object", "additionalProperties": _TEXT},
    )
    schemas["WorkerList"] = _object(
        workers={"type": "array", "items": {"$ref": "#/components/schemas/Worker"}},
        total={"type": "integer"},
        stats={"type": "object", "additionalProperties": {"type": "integer"}},
    )
    schemas["Accepted"] = _object(
        status={"const": "accepted"}, worker_id=_TEXT, url=_TEXT, location=_TEXT, message=_TEXT
    )
    policy = PolicySelection.model_json_schema(ref_template="#/components/schemas/{model}") | {"required": ["name"]}
    schemas |= policy.pop("$defs", {})
    schemas["PolicySelection"] = {"anyOf": [{**_TEXT, "description": "Its name alone."}, policy]}
    schemas["Pool"] = _object(
        name=_TEXT,
        policy=_object(name=_TEXT, source=_TEXT, is_quarantined={"type": "boolean"}),
        workers={"type": "array", "items": _TEXT},
    )
    schemas["PoolList"] = _object(pools={"type": "array", "items": {"$ref": "#/components/schemas/Pool"}})
    schemas["LogLevel"] = _object(level={**_TEXT, "examples": ["debug"]})
    schemas["AdminError"] = _object(error=_TEXT, code=_TEXT)
    schemas["Error"] = _object(error=_object(message=_TEXT, type=_TEXT, code=_TEXT))
    return schemas


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}
