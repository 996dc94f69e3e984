"""The `least_loaded` policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from router_core.api import Leg, PolicyConfig, RoutingRequest, Worker, hookimpl


class LeastLoadedPolicy:
    """Take the candidate with the least in flight.

    Load is what the router itself has in flight on each: exact, current and known of every worker. Of equals by the
    metric the one with fewer requests is taken, of those the one whose latest reservation is oldest.
    """

    class Config(PolicyConfig):
        """Options of `least_loaded`."""

        metric: Literal["requests", "pending_prompt_tokens", "tokens"] = "requests"
        """What load means: `requests` in flight, prompt tokens whose prefill is not over, or all `tokens` in flight."""

    def __init__(self, config: Config) -> None:
        self._metric = config.metric

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the least loaded candidate."""
        metric = self._metric
        if metric == "requests":
            chosen = min(workers, key=_requests)
        elif metric == "tokens" or request.leg is Leg.DECODE:  # a decode worker has no prefill pending
            chosen = min(workers, key=_tokens)
        else:
            chosen = min(workers, key=_pending_prompt_tokens)
        request.explain("least_loaded", load=chosen.load, pending_prompt_tokens=chosen.pending_prompt_tokens)
        return chosen


def _requests(worker: Worker) -> tuple[int, int]:
    return worker.load, worker.last_reserved


def _pending_prompt_tokens(worker: Worker) -> tuple[int, int, int]:
    return worker.pending_prompt_tokens, worker.load, worker.last_reserved


def _tokens(worker: Worker) -> tuple[int, int, int]:
    return worker.pending_prompt_tokens + worker.decode_tokens, worker.load, worker.last_reserved
