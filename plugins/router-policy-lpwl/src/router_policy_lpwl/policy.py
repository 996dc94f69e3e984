"""The `lpwl` policy."""

from __future__ import annotations

from collections.abc import Sequence

from router_core.api import (
    BacklogPolicy,
    Leg,
    RoutingRequest,
    Worker,
    fewest_tokens,
    hookimpl,
)


class LpwlPolicy(BacklogPolicy):
    """Take the worker with the least prefill to do, what it has not of the new prompt counted in.

    A decode leg goes to who has the fewest tokens in flight.
    """

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the worker with the least pending work."""
        if request.leg is Leg.DECODE:
            request.explain("decode")
            return fewest_tokens(workers)
        backlog = self.backlog
        cached = backlog.match(workers, request)
        pending = [backlog.pending_tokens(worker.url) for worker in workers]
        work = [before - known for before, known in zip(pending, cached, strict=True)]  # the prompt itself is the same
        least = min(work)
        at = min(
            (at for at, one in enumerate(work) if one == least),
            key=lambda at: (workers[at].load, workers[at].last_reserved),
        )
        prompt = request.input_tokens
        share = cached[at] / max(prompt, 1)
        request.explain("least_work", pending=pending[at], cached=cached[at], prompt=prompt, cached_share=share)
        backlog.place(workers[at], request)
        return workers[at]
