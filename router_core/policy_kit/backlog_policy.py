"""The base of policies that go by how much prefill is pending: everything but the choice itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router_core.contract.hookspecs import hookimpl
from router_core.contract.policy import PolicyConfig
from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.policy_kit.prefill_backlog import PrefillBacklog
from router_core.policy_kit.prefix_index import PrefixIndex


class BacklogPolicy:
    """Keeps a `PrefillBacklog`: a policy built on it writes `select_single`, and calls `self.backlog.place` there.

    Options of its own go into a `class Config(BacklogPolicy.Config)`, further needs into
    `needs = BacklogPolicy.needs | {...}`. A subclass that implements one of these hooks itself calls `super()`.

    Attributes:
        backlog: What each worker has in its cache and still has to prefill, from the requests placed there.
    """

    class Config(PolicyConfig):
        """Options of the index below."""

        cache_tokens: Annotated[int, Field(ge=0)] = 1_000_000
        """Tokens a worker's KV cache is taken to hold. Too many does little harm, too few a lot."""

        max_blocks: Annotated[int, Field(ge=1)] = 1_000_000
        """Blocks of about 512 tokens to remember over all workers, about 200 bytes each."""

    needs: frozenset[str] = frozenset({"prefix"})

    def __init__(self, config: Config) -> None:
        self.backlog = PrefillBacklog(PrefixIndex(config.cache_tokens, max_blocks=config.max_blocks))

    @hookimpl
    def on_first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """A prefill is over."""
        self.backlog.first_token(worker, request)

    @hookimpl
    def on_request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt has ended."""
        self.backlog.complete(worker, request, outcome)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """A worker left for good."""
        self.backlog.remove_worker(worker)
