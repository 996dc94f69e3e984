"""The section `limits`: what a client or a worker may take of the router."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from router_core.config.section import Bytes, Count, Seconds, Section
from router_core.config.values import ContradictionError, not_bool

_MAX_BUFFERED_BYTES = 2_147_483_648


class LimitsConfig(Section):
    """What a client or a worker may take of the router."""

    max_connections: Count = 16384
    """Client connections at a time; one more is answered 503. Each takes a file descriptor and a few KB."""

    max_head_bytes: Bytes = 65536
    """Largest request line and headers together, in bytes; more is answered 431."""

    max_body_bytes: Bytes = 536870912
    """Largest request body, in bytes; more is answered 413."""

    max_buffered_bytes: Annotated[int, Field(ge=0), BeforeValidator(not_bool)] = _MAX_BUFFERED_BYTES
    """Most bytes of bodies that come in pieces, over all; then the largest unfinished is answered 503. 0 for none."""

    head_timeout_s: Seconds = 30
    """Seconds for a client to send its whole head once it has begun."""

    body_timeout_s: Seconds = 60
    """Seconds for a client to send the next part of its body."""

    keep_alive_timeout_s: Seconds = 75
    """Seconds an idle client connection stays open."""

    client_stall_timeout_s: Seconds = 300
    """Seconds a client may take nothing of an answer that waits for it; then it is cut off and its worker freed."""

    connect_timeout_s: Seconds = 10
    """Seconds to open a connection to a worker."""

    request_timeout_s: Seconds = 1800
    """Seconds a request may take from its arrival to the end of its answer."""

    upstream_idle_timeout_s: Seconds = 3
    """Seconds an idle connection to a worker stays open; keep it below the worker's own limit."""

    shutdown_settle_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False), BeforeValidator(not_bool)] = 5
    """Seconds after SIGTERM in which the router is not ready but serves on, for balancers to notice; 0 for none."""
    first_byte_timeout_s: Seconds | None = None
    """Seconds a worker may take to begin its answer; an answer that is no stream begins when it is computed."""

    stall_timeout_s: Seconds | None = 300
    """Seconds a worker may pause in the middle of an answer."""

    shutdown_grace_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False), BeforeValidator(not_bool)] = 30
    """Seconds running requests have to finish once the router has ceased to listen; 0 ends them at once."""

    @field_validator("max_buffered_bytes")
    @classmethod
    def _holds_the_largest_body(cls, value: int, info: ValidationInfo) -> int:
        largest: int = info.data.get("max_body_bytes", 0)
        if value == _MAX_BUFFERED_BYTES:
            return max(value, largest)  # who allows larger bodies need not give this, too
        if 0 < value < largest:
            problem = f"{value} is below max_body_bytes, {largest}: the largest body would never fit; give more"
            raise ContradictionError(problem, "max_body_bytes")
        return value
