"""Workers as people write them down: in the router's config, or in a file of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator

from router_core.contract.membership import WorkerSpec
from router_core.contract.policy import PolicyConfig
from router_core.contract.secret import ApiKey
from router_core.contract.worker import WorkerRole
from router_core.contract.worker_url import distinct_urls, worker_url

PortNumber = Annotated[int, Field(strict=True, ge=1, le=65535)]


class WorkerEntry(PolicyConfig):
    """One worker. A plain string in place of it means the url."""

    url: Annotated[str, AfterValidator(worker_url)]
    """Base URL of the worker, `http://HOST:PORT`."""

    role: WorkerRole = WorkerRole.REGULAR
    """What it serves: `regular`, `prefill` or `decode`."""

    models: tuple[str, ...] = ()
    """Ids of the models it serves; empty asks the engine."""

    labels: Mapping[str, str] = Field(default_factory=dict)
    """Free key-value pairs, passed on to policies."""

    bootstrap_port: PortNumber | None = None
    """Port of an SGLang prefill worker's bootstrap server."""

    api_key: ApiKey | None = None
    """Key that it wants from the router, in place of `worker_api_key`."""

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_prefill_bootstraps(self) -> WorkerEntry:
        if self.bootstrap_port is not None and self.role is not WorkerRole.PREFILL:
            raise ValueError("only a prefill worker has a bootstrap_port; set role: prefill, or remove it")
        return self

    def to_spec(self) -> WorkerSpec:
        """Return the worker as the router knows it."""
        return WorkerSpec(
            url=self.url,
            role=self.role,
            models=frozenset(self.models),
            labels=MappingProxyType(dict(self.labels)),
            bootstrap_port=self.bootstrap_port,
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
        )


def _is_list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("it is not a list; write one worker per item, each a url or a mapping with a url")
    return value


def _distinct(entries: tuple[WorkerEntry, ...]) -> tuple[WorkerEntry, ...]:
    distinct_urls(tuple(entry.url for entry in entries))
    return entries


WorkerEntries = Annotated[tuple[WorkerEntry, ...], BeforeValidator(_is_list), AfterValidator(_distinct)]

worker_entries: TypeAdapter[tuple[WorkerEntry, ...]] = TypeAdapter(WorkerEntries)
"""Checks a whole list, as it was read from YAML or JSON."""
