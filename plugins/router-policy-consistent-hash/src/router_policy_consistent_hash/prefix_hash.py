"""The `prefix_hash` policy: `consistent_hash` by a prompt's beginning alone, as other routers name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from router_core.api import PolicyConfig, RoutingRequest, Worker, hookimpl
from router_policy_consistent_hash.bounded import BoundedHash
from router_policy_consistent_hash.keys import KeyReader


class PrefixHashPolicy:
    """Send prompts that begin alike to the same worker while that one is not much busier than the others."""

    class Config(PolicyConfig):
        """Options of `prefix_hash`."""

        prefix_token_count: Annotated[int, Field(ge=1)] = 256
        """How much of a prompt is its beginning; four characters are taken for a token."""

        load_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.25
        """How many times its share of the requests in flight a worker takes before others help out."""

    def __init__(self, config: Config) -> None:
        reader = KeyReader(("prefix",), config.prefix_token_count)
        self.needs = reader.needs
        self._hash = BoundedHash(reader, config.load_factor, min_capacity=1)

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the first worker of the prompt's beginning that has room."""
        return self._hash.choose(workers, request)
