"""The settings for workers that fail: when requests are sent again, when a worker gets none for a while."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from router_core.config.section import Count, Seconds, Section
from router_core.config.values import not_bool, split_words

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(not_bool)]
_ErrorStatus = Annotated[int, Field(ge=400, le=599), BeforeValidator(not_bool)]


class BreakerConfig(Section):
    """When a worker that fails its requests gets none for a while."""

    enabled: bool = True
    """Keep requests from workers that fail them, whatever their health checks say."""

    failure_threshold: Count = 10
    """Failures that open a worker's circuit: errors of the 5xx kind but 503, lost connections, timeouts."""

    failure_share: Share = 0.5
    """Least share that these failures have of all that ended on the worker meanwhile; 1 asks for failures in a row."""

    window_s: Seconds = 120
    """Seconds within which these failures must lie."""

    open_s: Seconds = 60
    """Seconds an open circuit lets no request through; after that one at a time is tried."""

    success_threshold: Count = 3
    """Successes of such requests in a row that close the circuit."""


class RetriesConfig(Section):
    """When a request that failed is sent again. Never once its answer has begun."""

    max_attempts: Count = 3
    """Attempts at a request in all, those that found no connection not counted; 1 sends nothing again."""

    initial_backoff_s: Seconds = 0.05
    """Seconds before the second attempt, where it cannot be made at once."""

    max_backoff_s: Seconds = 30
    """Longest pause between two attempts, in seconds; an answer with a longer `Retry-After` is the client's."""

    multiplier: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False), BeforeValidator(not_bool)] = 1.5
    """How many times as long each pause is as the one before."""

    jitter: Share = 0.2
    """Share by which a pause is longer or shorter at random."""

    statuses: Annotated[tuple[_ErrorStatus, ...], BeforeValidator(split_words)] = (408, 429, 500, 502, 503, 504)
    """Workers' answers after which a request is sent again."""

    budget_share: Share = 0.2
    """Share of the requests in flight that may be on a later attempt; it keeps an outage from being multiplied.

    A request counts from its failure to the first byte of its answer."""

    budget_floor: Annotated[int, Field(ge=0, le=1000000), BeforeValidator(not_bool)] = 10
    """Requests that may be on a later attempt at the same time, however few are in flight."""

    deadline_s: Seconds | None = None
    """Seconds after a request's arrival within which a later attempt may begin; unset: `limits.request_timeout_s`."""

    dead_workers: bool = True
    """Send requests elsewhere that have no answer yet when their worker is found dead by its health checks."""
