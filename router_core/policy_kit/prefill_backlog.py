"""How much prefill each worker still has to do: uncached prompt tokens of what was sent there and has not answered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from router_core.contract.request import Leg, OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.policy_kit.cache_mirror import Placement
from router_core.policy_kit.prefix_index import PrefixIndex

_MAX_OPEN = 65_536
"""Requests followed at a time. More are only open if somebody places requests that are never sent."""


class PrefillBacklog:
    """Follows requests from selection to completion, over a `PrefixIndex` of its policy's.

    A policy calls `place` with what it is about to return, and passes `on_first_token`, `on_request_complete` and
    `on_worker_removed` on. Whatever becomes of an attempt, its tokens are pending until its first token or its end, and
    its blocks are pinned until its end. Decode legs have no prefill: theirs are passed over.
    """

    def __init__(self, index: PrefixIndex) -> None:
        self.index = index
        self._open: OrderedDict[RoutingRequest, _Open] = OrderedDict()
        self._pending: dict[str, int] = {}

    def match(self, workers: Sequence[Worker], request: RoutingRequest) -> list[int]:
        """Return how many of a prompt's tokens each worker has in its cache, in order. Needs `prefix`."""
        tokens = request.input_tokens
        return [min(cached, tokens) for cached in self.index.match(request.prefix, workers)]

    def pending_tokens(self, worker_url: str) -> int:
        """Return how many uncached prompt tokens were sent to a worker whose prefill is not over."""
        return self._pending.get(worker_url, 0)

    def place(self, worker: Worker, request: RoutingRequest) -> None:
        """A request goes to a worker; nothing happens for a decode leg."""
        if request.leg is Leg.DECODE:
            return
        placement = self.index.place(worker.url, request.prefix)
        uncached = max(request.input_tokens - placement.matched_tokens, 0)
        self._open[request] = _Open(worker.url, uncached, placement)
        self._pending[worker.url] = self._pending.get(worker.url, 0) + uncached
        if len(self._open) > _MAX_OPEN:
            _, lost = self._open.popitem(last=False)
            self._settle(lost)
            self.index.withdraw(lost.placement)

    def first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """A prefill is over."""
        held = self._open.get(request)
        if held is not None and held.worker_url == worker.url:
            self._settle(held)
            self._open[request] = held._replace(uncached=0)

    def complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt has ended; what was not computed teaches the index nothing."""
        if outcome.leg is Leg.DECODE:
            return
        held = self._open.pop(request, None)
        if held is None:
            return
        self._settle(held)
        if held.worker_url == worker.url and _was_computed(outcome):
            self.index.release(held.placement)
        else:
            self.index.withdraw(held.placement)

    def remove_worker(self, worker: Worker) -> None:
        """A worker left for good; what still runs there is followed to its end."""
        self.index.remove_worker(worker.url)

    def _settle(self, held: _Open) -> None:
        left = self._pending.get(held.worker_url, 0) - held.uncached
        if left > 0:
            self._pending[held.worker_url] = left
        else:
            self._pending.pop(held.worker_url, None)


class _Open(NamedTuple):
    """One attempt: where, what its prefill still costs, and its blocks."""

    worker_url: str
    uncached: int
    placement: Placement


def _was_computed(outcome: RequestOutcome) -> bool:
    """Say whether the worker has the prompt in its cache now, as far as can be told."""
    if outcome.status is OutcomeStatus.SUCCESS:
        return True
    was_cut_short = outcome.status in (OutcomeStatus.CANCELLED, OutcomeStatus.TIMEOUT)
    return was_cut_short and outcome.ttft_s is not None
