"""The hooks: the whole contract between the router and a policy, in prose.

A policy is a class whose methods carry `@hookimpl`. It names only the parameters it uses; pluggy passes just those.
All hooks of one policy instance run in one thread, so it needs no lock. Every hook is a plain synchronous function
that does no I/O; only `on_start` and `on_stop` may be `async def`.

Life cycle of an attempt: select (one of the two) -> the core reserves the worker in the same step ->
`on_first_token` when prefill is over -> exactly one `on_request_complete`, however it ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from router_core.contract.pool import PoolContext
    from router_core.contract.request import RequestOutcome, RoutingRequest
    from router_core.contract.worker import Worker

PROJECT_NAME = "router_core"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class PolicySpec:
    """Every hook a policy or an observer may implement."""

    # --- choosing ---

    @hookspec(firstresult=True)
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker | None:
        """Choose the worker for a request, or for one leg of it (`request.leg`).

        The candidates are healthy, of the right role, and there is at least one. The core reserves the answer before
        anything else runs, so the next call already sees its load.

        Args:
            workers: The candidates; a tuple, never empty, in the order they joined the pool.
            request: What the client asked for.

        Returns:
            One of `workers`, or None when none of them is suitable: the client then gets 503.
        """

    @hookspec(firstresult=True)
    def select_pair(
        self, prefill_workers: Sequence[Worker], decode_workers: Sequence[Worker], request: RoutingRequest
    ) -> tuple[Worker, Worker] | None:
        """Choose the prefill and the decode worker of a disaggregated request jointly.

        Optional: without it the core calls `select_single` twice, with `request.leg` set to prefill and then decode.

        Args:
            prefill_workers: Healthy prefill candidates; a tuple, never empty.
            decode_workers: Healthy decode candidates; a tuple, never empty.
            request: What the client asked for.

        Returns:
            `(prefill, decode)`, one out of each sequence, or None when no pair is suitable.
        """

    # --- following what became of it ---

    @hookspec
    def on_first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """The first bytes of the answer arrived: the prompt's prefill is over. At most once an attempt.

        Args:
            worker: Who answers.
            request: The request, as it was given to select.
        """

    @hookspec
    def on_request_complete(
        self, worker_url: str, success: bool, worker: Worker, request: RoutingRequest, outcome: RequestOutcome
    ) -> None:
        """An attempt has ended; exactly one call for each reservation, whatever happened.

        The worker's load is already released. The worker may have left the pool meanwhile.

        Args:
            worker_url: The `url` of `worker`.
            success: True for success and for the client's own errors; `outcome.status` tells all cases apart.
            worker: Who served it.
            request: The request, as it was given to select.
            outcome: How it ended.
        """

    # --- knowing the pool ---

    @hookspec
    def on_worker_added(self, worker: Worker) -> None:
        """A worker joined the pool (at start: once for each). It may not be healthy yet.

        Args:
            worker: The new member.
        """

    @hookspec
    def on_worker_removed(self, worker: Worker) -> None:
        """A worker left the pool for good. A worker that is only unhealthy stays a member.

        Args:
            worker: The member that left; requests may still be running on it.
        """

    # --- life ---

    @hookspec
    def on_start(self, pool: PoolContext) -> Awaitable[None] | None:
        """The pool starts; comes once, before any other hook. May be `async def`, bounded in time.

        Args:
            pool: Clock, seeded random, timers and counters: a policy owns none of its own.
        """

    @hookspec
    def on_stop(self) -> Awaitable[None] | None:
        """The pool stops; comes once, after the last request. May be `async def`, bounded in time."""


SELECT_HOOKS = frozenset({"select_single", "select_pair"})
ASYNC_HOOKS = frozenset({"on_start", "on_stop"})
