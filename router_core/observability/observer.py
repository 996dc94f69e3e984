"""The metrics everybody wants, counted by an observer like anyone's: it sees what any plugin sees, nothing more."""

from __future__ import annotations

from router_core.api import PolicyConfig, PoolContext, RequestOutcome, RoutingRequest, Worker, hookimpl


class MetricsObserver:
    """Counts what became of each attempt, how long it took, its tokens and the reason the policy gave.

    One decision is counted for each attempt and leg, when it ends, so decisions and requests can be compared.
    """

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Keep the pool's counters: looking them up for each request would cost as much as counting."""
        self._count = pool.count
        self._observe = pool.observe

    @hookimpl
    def on_request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Count one attempt. Status, duration and leg are always known; times and tokens only when there were any."""
        count, observe, url, leg = self._count, self._observe, worker.url, outcome.leg
        count("requests_total", 1, worker=url, status=outcome.status, leg=leg)
        count("policy_decisions_total", 1, worker=url, reason=request.reason or "unexplained")
        observe("request_duration_seconds", outcome.duration_s, leg=leg)
        ttft_s, prompt_tokens, completion_tokens = outcome.ttft_s, outcome.prompt_tokens, outcome.completion_tokens
        if ttft_s is not None:
            observe("time_to_first_token_seconds", ttft_s, leg=leg)
        if prompt_tokens is not None:
            count("prompt_tokens_total", prompt_tokens, worker=url)
        if outcome.cached_tokens is not None:
            count("cached_tokens_total", outcome.cached_tokens, worker=url)
        if completion_tokens is not None:
            count("completion_tokens_total", completion_tokens, worker=url)
