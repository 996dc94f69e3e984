"""The settings of OpenTelemetry traces."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from router_core.config.section import Section, Word
from router_core.config.values import not_bool
from router_core.contract.errors import shown


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and parts.hostname is not None and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(f"{shown(value)} is no address of a collector; write http://HOST:4318")
    return value if parts.path.strip("/") else f"{value.rstrip('/')}/v1/traces"


class TracingConfig(Section):
    """OpenTelemetry traces: a span for each inference request. Needs `router-core[otel]`."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    """Where traces are sent by OTLP over HTTP, such as `http://localhost:4318`; unset traces nothing."""

    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(not_bool)] = 1.0
    """Share of the requests without a trace of their own that get one; of the others their caller has decided."""

    service_name: Word = "router-core"
    """The service's name in traces."""
