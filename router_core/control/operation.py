"""One method of one path, said once: the route is made from it, and so is its entry in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from router_core.control.errors import Handler

AnswerKind = Literal[
    "accepted",
    "error",
    "admin_error",
    "object",
    "text",
    "worker",
    "worker_list",
    "pool",
    "pool_list",
    "log_level",
    "any",
]
"""What an answer holds: a schema of the OpenAPI document, or one of its plain media types."""


Group = Literal["inference", "models", "metrics", "probes", "administration"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: Such as `POST`.
        path: With `{id}` where a worker's id stands.
        handler: The name of the method that answers; unique unless there is a `name`.
        summary: What it does, in one line.
        answers: What each status comes with.
        takes: What the body describes; None if none is looked at.
        takes_url: Whether the query names a worker's `url`.
        group: Who it is for, which is also the key it wants.
        name: What it is called in the document, if not as its handler.
    """

    method: str
    path: str
    handler: str
    summary: str
    answers: Mapping[int, AnswerKind]
    takes: Literal["worker", "policy", "log_level", "inference", "audio"] | None = None
    takes_url: bool = field(default=False)
    group: Group = "administration"
    name: str = ""

    @property
    def route(self) -> str:
        """The path as aiohttp wants it; a pool and a model may be called `organisation/model`."""
        # With a look back, lest a pool's path be taken for the pool `NAME/policy`.
        return self.path.replace("{name}", "{name:.+(?<!/policy)}").replace("{model}", "{model:.+}")


def add_routes(router: web.UrlDispatcher, operations: Iterable[Operation], owner: object) -> None:
    """Serve some of them by the methods of their owner."""
    for operation in operations:
        handler: Handler = getattr(owner, operation.handler)
        if operation.method == "GET":
            router.add_get(operation.route, handler)
        else:
            router.add_route(operation.method, operation.route, handler)
