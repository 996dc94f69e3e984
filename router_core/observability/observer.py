"""The metrics everybody wants, counted by an observer like anyone's: it sees what any plugin sees, nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from router_core.api import (
    Leg,
    OutcomeStatus,
    PolicyConfig,
    PoolContext,
    RequestOutcome,
    RoutingRequest,
    Worker,
    hookimpl,
)

CACHED_SHARE = "cached_share"
"""The part of `request.explain` by which a policy says what share of the prompt it expects in the worker's cache."""

_Key = tuple[str, OutcomeStatus, Leg, str | None]


class _Series(NamedTuple):
    """What is fed for attempts that ended alike."""

    requests: Callable[[float], None]
    decisions: Callable[[float], None]
    duration: Callable[[float], None]
    ttft: Callable[[float], None]
    tpot: Callable[[float], None]


class MetricsObserver:
    """Counts what became of each attempt, how long it took, its tokens and the reason the policy gave.

    One decision is counted for each attempt and leg, when it ends, so decisions and requests can be compared.
    """

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._present: set[str] = set()
        self._series: dict[_Key, _Series] = {}
        self._tokens: dict[tuple[str, str], Callable[[float], None]] = {}
        self._check: tuple[Callable[[float], None], Callable[[float], None]] | None = None

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Keep the pool, whose counters are looked up when an outcome is met first."""
        self._pool = pool

    @hookimpl
    def on_request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Count one attempt. Status, duration and leg are always known; times and tokens only when there were any."""
        url = worker.url
        key = (url, outcome.status, outcome.leg, request.reason)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._meet(*key)
        series.requests(1)
        series.decisions(1)
        series.duration(outcome.duration_s)
        ttft_s, completion_tokens = outcome.ttft_s, outcome.completion_tokens
        if ttft_s is not None:
            series.ttft(ttft_s)
            if completion_tokens is not None and completion_tokens > 1:
                series.tpot((outcome.duration_s - ttft_s) / (completion_tokens - 1))
        if outcome.prompt_tokens is not None:
            self._count_tokens("prompt_tokens_total", url, outcome.prompt_tokens)
        if outcome.cached_tokens is not None:
            self._count_tokens("cached_tokens_total", url, outcome.cached_tokens)
            if CACHED_SHARE in request.reason_parts and outcome.prompt_tokens and outcome.leg is not Leg.DECODE:
                self._check_prediction(request.reason_parts[CACHED_SHARE], outcome.prompt_tokens, outcome.cached_tokens)
        if completion_tokens is not None:
            self._count_tokens("completion_tokens_total", url, completion_tokens)

    @hookimpl
    def on_worker_added(self, worker: Worker) -> None:
        """Look its series up anew: a worker that returns may have others than it had."""
        self._let_go()
        self._present.add(worker.url)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """Let go of what was kept for it."""
        self._present.discard(worker.url)
        self._let_go()

    def _let_go(self) -> None:
        """Keep nothing for workers that have left; their last requests may have ended since."""
        present = self._present
        self._series = {key: series for key, series in self._series.items() if key[0] in present}
        self._tokens = {key: add for key, add in self._tokens.items() if key[1] in present}

    def _check_prediction(self, share: object, prompt_tokens: int, cached_tokens: int) -> None:
        """Set what the policy expected beside what the engine found."""
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            return
        if self._check is None:
            counter = self._pool.counter
            self._check = (
                counter("cache_check_predicted_tokens_total"),
                counter("cache_check_reported_tokens_total"),
            )
        predicted, reported = self._check
        predicted(share * prompt_tokens)
        reported(cached_tokens)

    def _count_tokens(self, name: str, url: str, tokens: int) -> None:
        add = self._tokens.get((name, url))
        if add is None:
            add = self._tokens[name, url] = self._pool.counter(name, worker=url)
        add(tokens)

    def _meet(self, url: str, status: OutcomeStatus, leg: Leg, reason: str | None) -> _Series:
        pool = self._pool
        return _Series(
            pool.counter("requests_total", worker=url, status=status, leg=leg),
            pool.counter("policy_decisions_total", worker=url, reason=reason or "unexplained"),
            pool.histogram("request_duration_seconds", leg=leg),
            pool.histogram("time_to_first_token_seconds", leg=leg),
            pool.histogram("time_per_output_token_seconds", leg=leg),
        )
