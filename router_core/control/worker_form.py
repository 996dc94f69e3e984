"""What a client sends to add or change a worker: checked, and turned into labels, role and models.

Fields of other gateways that mean nothing here are taken and named in the answer, so that scripts written for those go
on working and nobody believes they had an effect. Anything else unknown is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from router_core.contract.errors import shown
from router_core.contract.secret import ApiKey
from router_core.contract.worker import Worker, WorkerRole
from router_core.contract.worker_url import worker_url
from router_core.fleet.membership.roster import BOOTSTRAP_PORT_LABEL

PRIORITY_LABEL = "priority"
COST_LABEL = "cost"
FIELD_LABELS = frozenset({PRIORITY_LABEL, COST_LABEL, BOOTSTRAP_PORT_LABEL})
"""Labels that are fields of their own in requests and answers."""

DEFAULT_PRIORITY = 50
DEFAULT_COST = 1.0

WITHOUT_EFFECT = frozenset(
    {
        "chat_template",
        "connection_mode",
        "disable_health_check",
        "dp_aware",
        "health_check_interval_secs",
        "health_check_timeout_secs",
        "health_failure_threshold",
        "health_success_threshold",
        "http2",
        "max_connection_attempts",
        "reasoning_parser",
        "runtime",
        "runtime_type",
        "tokenizer_path",
        "tool_parser",
    }
)
"""Fields of other gateways that this one takes and does not use."""


class FormError(Exception):
    """What was sent cannot be used; the message says why and what to send."""


class WorkerForm(BaseModel):
    """A worker, as a client describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(worker_url)] | None = None
    role: WorkerRole = Field(WorkerRole.REGULAR, validation_alias=AliasChoices("worker_type", "role"))
    model_id: str | None = None
    models: tuple[str, ...] = ()
    priority: Annotated[int, Field(strict=True, ge=0)] = DEFAULT_PRIORITY
    cost: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = DEFAULT_COST
    labels: Mapping[str, str | None] = Field(default_factory=dict)
    bootstrap_port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    api_key: ApiKey | None = None

    @property
    def named_models(self) -> frozenset[str]:
        """The models it is said to serve; empty to ask the engine."""
        return frozenset(filter(None, (*self.models, self.model_id)))

    @property
    def names_models(self) -> bool:
        """Whether anything was said of its models."""
        return not self.model_fields_set.isdisjoint({"models", "model_id"})

    @property
    def key(self) -> str | None:
        """The API key it wants from the router."""
        return None if self.api_key is None else self.api_key.get_secret_value()

    def to_worker(self) -> Worker:
        """Return the worker it describes, not healthy yet: the health checker admits it.

        Raises:
            FormError: If the url is missing.
        """
        if self.url is None:
            raise FormError("url: is missing; send the worker's address, http://HOST:PORT")
        if self.bootstrap_port is not None and self.role is not WorkerRole.PREFILL:
            raise FormError("bootstrap_port: only a prefill worker has one; set worker_type to prefill, or remove it")
        return Worker(self.url, role=self.role, models=self.named_models, labels=self.labels_now({}), is_healthy=False)

    def labels_now(self, before: Mapping[str, str]) -> dict[str, str]:
        """Return a worker's labels after this form.

        Args:
            before: Its labels so far; those the form does not speak of stay, those it gives as null go.
        """
        given: dict[str, str | None] = dict(self.labels)
        for label in FIELD_LABELS & self.model_fields_set:
            value = getattr(self, label)
            given[label] = None if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        merged = {**before, **given}
        return {name: value for name, value in merged.items() if value is not None}


def read_form(body: bytes) -> tuple[WorkerForm, list[str]]:
    """Return what a request says of a worker, and the names of fields it gives without effect.

    Raises:
        FormError: If it is no JSON object, or a field does not fit.
    """
    try:
        fields: Any = orjson.loads(body)  # Any: whatever a client sends; checked below
    except orjson.JSONDecodeError as error:
        raise FormError(f"the body is not JSON ({error}); send a JSON object such as {_EXAMPLE}") from error
    if not isinstance(fields, dict):
        raise FormError(f"the body is not a JSON object; send one such as {_EXAMPLE}")
    without_effect = sorted(WITHOUT_EFFECT & fields.keys())
    try:
        form = WorkerForm.model_validate({name: fields[name] for name in fields if name not in WITHOUT_EFFECT})
    except ValidationError as error:
        raise FormError("; ".join(map(_sentence, error.errors(include_url=False, include_input=False)))) from error
    return form, without_effect


_EXAMPLE = '{"url": "http://HOST:PORT"}'


_PLAIN = re.compile(r"[\w.-]{1,40}")


def _sentence(problem: Any) -> str:  # Any: pydantic's own description of an error
    place = ".".join(str(part) if _PLAIN.fullmatch(str(part)) else shown(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown field; known are {', '.join(_KNOWN)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


_KNOWN = ("url", "worker_type", "model_id", "models", "priority", "cost", "labels", "bootstrap_port", "api_key")
