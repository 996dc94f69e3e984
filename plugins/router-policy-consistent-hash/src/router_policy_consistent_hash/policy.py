"""The `consistent_hash` policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from router_core.api import PolicyConfig, RoutingRequest, Worker, hookimpl
from router_policy_consistent_hash.bounded import BoundedHash
from router_policy_consistent_hash.keys import KeyReader, KeySources


class ConsistentHashPolicy:
    """Send the same key to the same worker while that one is not much busier than the others.

    Nothing is remembered, so several routers agree without speaking, and a restart changes nothing.
    """

    class Config(PolicyConfig):
        """Options of `consistent_hash`."""

        keys: KeySources = ("header:x-smg-routing-key", "session", "header:x-user-id", "user", "prefix")
        """What belongs together, the first that a request has: `session`, `user`, `prefix`, `header:NAME`."""

        load_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = 1.25
        """How many times its share of the requests in flight a worker takes before others help; null: any number."""

        min_capacity: Annotated[int, Field(ge=1)] = 2
        """Requests in flight a worker takes whatever its share is: on a quiet fleet a share is less than one."""

        prefix_tokens: Annotated[int, Field(ge=1)] = 256
        """How much of a prompt is the key `prefix`; four characters are taken for a token."""

    def __init__(self, config: Config) -> None:
        reader = KeyReader(config.keys, config.prefix_tokens)
        self.needs = reader.needs
        self._hash = BoundedHash(reader, config.load_factor, config.min_capacity)

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the first worker of the request's key that has room."""
        return self._hash.choose(workers, request)
