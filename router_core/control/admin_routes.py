"""The paths of administration."""

from __future__ import annotations

from collections.abc import Mapping

from router_core.control.operation import AnswerKind, Operation

_UNFIT: Mapping[int, AnswerKind] = {400: "admin_error", 404: "admin_error"}
_CHANGED: Mapping[int, AnswerKind] = {202: "accepted", **_UNFIT}

WORKERS = (
    Operation("GET", "/workers", "list_workers", "List all registered workers.", {200: "worker_list"}),
    Operation(
        "POST",
        "/workers",
        "add_worker",
        "Add a worker; it gets requests once its health check passes.",
        {202: "accepted", 400: "admin_error", 409: "admin_error"},
        takes="worker",
    ),
    Operation(
        "GET",
        "/workers/{id}",
        "get_worker",
        "Tell of one worker.",
        {200: "worker", **_UNFIT},
    ),
    Operation(
        "PUT",
        "/workers/{id}",
        "replace_worker",
        "Set labels, priority and cost, to their defaults where the body is silent.",
        _CHANGED,
        takes="worker",
    ),
    Operation(
        "PATCH",
        "/workers/{id}",
        "merge_worker",
        "Change what the body names; a label given as null goes.",
        _CHANGED,
        takes="worker",
    ),
    Operation(
        "DELETE",
        "/workers/{id}",
        "remove_worker",
        "Let a worker finish what it has and go.",
        _CHANGED,
    ),
    Operation(
        "POST",
        "/add_worker",
        "add_url",
        "Add the worker at a URL.",
        {200: "text", 400: "admin_error", 409: "admin_error"},
        takes_url=True,
    ),
    Operation(
        "POST",
        "/remove_worker",
        "remove_url",
        "Let the worker at a URL finish what it has and go.",
        {200: "text", **_UNFIT},
        takes_url=True,
    ),
    Operation("GET", "/list_workers", "list_urls", "List the addresses of all workers that stay.", {200: "object"}),
)
"""Answered by `WorkerAdmin`."""

ENGINES = (
    Operation(
        "POST", "/flush_cache", "flush_cache", "Have every worker flush its cache.", {200: "object", 206: "object"}
    ),
    Operation("GET", "/get_loads", "loads", "Tell how many tokens each worker holds.", {200: "object"}),
    Operation("GET", "/get_server_info", "server_info", "Tell how many workers there are.", {200: "object"}),
    Operation(
        "GET",
        "/get_model_info",
        "model_info",
        "Pass on what the first available worker says of its model.",
        {200: "any", 502: "error", 503: "error"},
    ),
    Operation("GET", "/engine_metrics", "metrics", "Tell all workers' metrics as one.", {200: "text", 500: "error"}),
    Operation(
        "GET",
        "/health_generate",
        "health_generate",
        "Have one worker of each role generate a token.",
        {200: "object", 503: "error"},
    ),
)
"""Answered by `EngineHandlers`."""

POOLS = (
    Operation("GET", "/pools", "list_pools", "List all pools, their policies and workers.", {200: "pool_list"}),
    Operation("GET", "/pools/{name}", "get_pool", "Tell of one pool.", {200: "pool", 404: "admin_error"}),
    Operation(
        "PUT",
        "/pools/{name}/policy",
        "replace_policy",
        "Give a pool another policy; requests under way stay with the old one.",
        {200: "pool", **_UNFIT},
        takes="policy",
    ),
)
"""Answered by `PoolHandlers`."""

LOG_LEVEL = (
    Operation("GET", "/log_level", "get_log_level", "Tell the level of the log.", {200: "log_level"}),
    Operation(
        "PUT",
        "/log_level",
        "set_log_level",
        "Change the level of the log until the router stops.",
        {200: "log_level", 400: "admin_error"},
        takes="log_level",
    ),
)
"""Answered by `LogLevelHandlers`."""

OPERATIONS = (*WORKERS, *ENGINES, *POOLS, *LOG_LEVEL)
"""All of them."""

ADMIN_PATHS = tuple(dict.fromkeys(operation.route for operation in OPERATIONS))
"""The paths of all of them, as aiohttp wants them."""
