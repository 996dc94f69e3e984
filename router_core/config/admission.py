"""How much the router takes on at once, and who waits for what."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from router_core.config.section import Count, Rate, Seconds, Section
from router_core.config.values import header_name, not_bool

NOBODY_WAITS = (
    "has no effect, for nobody waits; set max_concurrent_requests, requests_per_s or tokens_per_s here, or "
    "max_concurrent_requests of an API key, or leave it out"
)


class AdmissionConfig(Section):
    """How much is taken on at once. Off, and free of cost, until a limit is set here or for an API key."""

    max_concurrent_requests: Count | None = None
    """Inference requests that run at once; more wait in the queue. Unset takes any number."""

    queue_size: Annotated[int, Field(ge=0), BeforeValidator(not_bool)] = 100
    """Requests that may wait; more are answered 429. With 0 nobody waits."""

    queue_timeout_s: Seconds = 60
    """Seconds a request may wait; then it is answered 408."""

    requests_per_s: Rate | None = None
    """Requests that may begin in a second; more wait in the queue."""

    tokens_per_s: Rate | None = None
    """Estimated prompt tokens that may begin in a second; more wait in the queue. None are given back."""

    priority_header: Annotated[str, AfterValidator(header_name)] = "x-request-priority"
    """Request header that says `high`, `normal` or `low`: who waits is served in that order."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit that holds for all keys together."""
        return any(
            limit is not None for limit in (self.max_concurrent_requests, self.requests_per_s, self.tokens_per_s)
        )

    @property
    def settings_of_queue(self) -> tuple[str, ...]:
        """What is set, other than it is by default, for those who wait."""
        names = ("queue_size", "queue_timeout_s", "priority_header")
        return tuple(name for name in names if getattr(self, name) != type(self).model_fields[name].default)
