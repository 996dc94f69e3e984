"""Which requests a decode worker had better do alone: so little of the prompt is missing there that to compute it costs
less than to have it sent.

As llm-d's prefix-based decider and Dynamo's conditional disaggregation do, by what is not cached rather than by length.
"""

from __future__ import annotations

from router_core.contract.request import RoutingRequest
from router_core.contract.worker import Worker, WorkerRole
from router_core.policy_kit.prefix_index import PrefixIndex


class LocalPrefill:
    """Remembers what decode workers were sent and judges requests by it.

    Attributes:
        needs: What must be known of a request.
    """

    needs = frozenset({"prefix"})

    def __init__(self, min_tokens: int, cache_tokens: int) -> None:
        """Know nothing yet.

        Args:
            min_tokens: Estimated prompt tokens missing on a decode worker from which on a transfer is worth it.
            cache_tokens: KV cache that a decode worker is taken to have.
        """
        self._min_tokens = min_tokens
        self._caches = PrefixIndex(cache_tokens)

    def candidates(self, request: RoutingRequest, decodes: tuple[Worker, ...]) -> tuple[Worker, ...]:
        """Return the decode workers that had better do all of a request; empty when it takes a pair."""
        tokens = request.input_tokens
        if tokens < self._min_tokens:
            return decodes
        matches = self._caches.match(request.prefix, decodes)
        return tuple(
            worker
            for worker, matched in zip(decodes, matches, strict=True)
            if tokens - min(matched, tokens) < self._min_tokens
        )

    def placed(self, worker: Worker, request: RoutingRequest) -> None:
        """A worker was sent a request; a decode worker, in a pair or alone, will have its prompt."""
        if worker.role is WorkerRole.DECODE:
            self._caches.release(self._caches.place(worker.url, request.prefix))

    def forget(self, worker: Worker) -> None:
        """A worker has left."""
        self._caches.remove_worker(worker.url)
