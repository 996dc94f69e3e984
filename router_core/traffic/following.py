"""Following a request through all attempts at it: for a log line, a trace, headers that say who served it.

Nobody follows by default, and then it costs nothing. A follower sees figures and names, and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending


class RequestFollower(Protocol):
    """Is told of one request what becomes of it, in the order of the methods here; the first two for each attempt."""

    def placed(self, exchange: Exchange, worker: Worker, request: RoutingRequest, policy: str) -> None:
        """A worker was reserved, by a policy of this name; `request.reason` says why. Nothing has been sent."""

    def attempt_ended(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt, or one leg of it, ended."""

    def on_over(self, exchange: Exchange, ending: Ending | None) -> None:
        """The client has its answer, or never will; `ending` is None when the router answered itself."""


Follow = Callable[[Exchange], RequestFollower | None]
"""Begins to follow a request that has just arrived, if it wants to."""


class Following:
    """All who follow one request."""

    __slots__ = ("_followers",)

    def __init__(self, followers: Sequence[RequestFollower]) -> None:
        self._followers = followers

    def placed(self, exchange: Exchange, worker: Worker, request: RoutingRequest, policy: str) -> None:
        """See `RequestFollower`."""
        for follower in self._followers:
            follower.placed(exchange, worker, request, policy)

    def attempt_ended(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """See `RequestFollower`."""
        for follower in self._followers:
            follower.attempt_ended(worker, request, outcome)

    def on_over(self, exchange: Exchange, ending: Ending | None) -> None:
        """See `RequestFollower`."""
        for follower in self._followers:
            follower.on_over(exchange, ending)


def following(exchange: Exchange) -> Following | None:
    """Return who follows a request; None when nobody does, or it is over."""
    follower = exchange.follower
    return follower if isinstance(follower, Following) else None
