"""The `lpwl` policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from router_core.api import (
    Leg,
    PolicyConfig,
    PrefillBacklog,
    PrefixIndex,
    RequestOutcome,
    RoutingRequest,
    Worker,
    hookimpl,
)


class LpwlPolicy:
    """Take the worker with the least prefill to do, what it has not of the new prompt counted in.

    A decode leg goes to who has the fewest tokens in flight.
    """

    class Config(PolicyConfig):
        """Options of `lpwl`."""

        cache_tokens: Annotated[int, Field(ge=0)] = 1_000_000
        """Tokens a worker's KV cache is taken to hold. Too many does little harm, too few a lot."""

        max_blocks: Annotated[int, Field(ge=1)] = 1_000_000
        """Blocks of about 512 tokens to remember over all workers, about 200 bytes each."""

    needs = frozenset({"prefix"})

    def __init__(self, config: Config) -> None:
        self._backlog = PrefillBacklog(PrefixIndex(config.cache_tokens, max_blocks=config.max_blocks))

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the worker with the least pending work."""
        if request.leg is Leg.DECODE:
            request.explain("decode")
            return min(workers, key=_context)
        backlog = self._backlog
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

    @hookimpl
    def on_first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """A prefill is over."""
        self._backlog.first_token(worker, request)

    @hookimpl
    def on_request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt has ended."""
        self._backlog.complete(worker, request, outcome)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """A worker left for good."""
        self._backlog.remove_worker(worker)


def _context(worker: Worker) -> tuple[int, int, int]:
    return worker.pending_prompt_tokens + worker.decode_tokens, worker.load, worker.last_reserved
