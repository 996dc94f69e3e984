"""The settings of prefill/decode disaggregation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from router_core.config.section import Section, Word, WorkerUrl, WorkerUrls
from router_core.config.values import not_bool, prefill_worker, prefill_workers
from router_core.contract.worker_url import distinct_urls


class PrefillWorker(Section):
    """A prefill worker. A plain URL, or `[URL, PORT]`, in place of it will do."""

    url: WorkerUrl
    """Base URL of the worker, `http://HOST:PORT`."""

    bootstrap_port: Annotated[int, Field(ge=1, le=65535), BeforeValidator(not_bool)] | None = None
    """Port of its bootstrap server (SGLang, Mooncake) or side channel; none where the protocol needs none."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return prefill_worker(value)


class PdConfig(Section):
    """Prefill/decode disaggregation: one request on two workers. It is on as soon as its workers are named."""

    enabled: bool = False
    """Serve each request by a pair even if no worker is named here: sources of membership find them."""

    protocol: Word = "sglang"
    """Name of an installed protocol: `sglang` and `vllm` come with the router."""

    prefill: Annotated[tuple[PrefillWorker, ...], BeforeValidator(prefill_workers)] = ()
    """The prefill workers, each a URL with its bootstrap port: `{url: http://HOST:PORT, bootstrap_port: 8998}`."""

    decode: WorkerUrls = ()
    """Base URLs of the decode workers."""

    options: Mapping[str, Any] = Field(default_factory=dict)  # Any: the protocol's own Config says what is allowed
    """Options of the protocol."""

    @property
    def is_on(self) -> bool:
        """Whether requests are served by pairs."""
        return self.enabled or bool(self.prefill or self.decode)

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs of all workers named here."""
        return (*(worker.url for worker in self.prefill), *self.decode)

    @model_validator(mode="after")
    def _names_each_once(self) -> PdConfig:
        distinct_urls(self.urls)
        return self
