"""The scorers: each gives every worker a score from 0 to 1. Those that remember are told what became of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from router_core.api import EngineTelemetry, Leg, PrefillBacklog, PrefixIndex, RequestOutcome, RoutingRequest, Worker
from router_policy_weighted.memories import Adapters, ColdPrompts, Sessions, Unread
from router_policy_weighted.options import ScorerName, WeightedConfig
from router_policy_weighted.scales import NEUTRAL, least_is_best, prefix_score, share_left

TELEMETRY_SCORERS = frozenset({"queue", "running", "kv", "load_aware"})
QUEUE_SCORERS = frozenset({"queue", "running", "load_aware"})
PREFIX_SCORERS = frozenset({"prefix", "no_hit_lru"})


class Case(NamedTuple):
    """What is to be scored.

    Attributes:
        workers: The candidates.
        request: What is to be placed.
        cached: Tokens of the prompt that each has cached; empty when no scorer asks, zeros for a decode leg.
    """

    workers: Sequence[Worker]
    request: RoutingRequest
    cached: Sequence[int]

    def expectation(self, at: int) -> dict[str, float]:
        """Return the share of the prompt that a candidate has cached, as a decision's part; nothing if nobody asked."""
        if not self.cached or self.request.leg is Leg.DECODE:
            return {}
        return {"cached_share": self.cached[at] / max(self.request.input_tokens, 1)}


Scorer = Callable[[Case], list[float]]


class Scorers:
    """Scores candidates with those scorers that have a weight.

    Attributes:
        needs: What must be declared for them.
    """

    def __init__(self, config: WeightedConfig) -> None:
        self._config = config
        weights = {name: weight for name, weight in config.scorers.items() if weight}
        self._backlog: PrefillBacklog | None = None
        if weights.keys() & PREFIX_SCORERS:
            self._backlog = PrefillBacklog(PrefixIndex(config.cache_tokens, max_blocks=config.max_blocks))
        self._sessions = Sessions(config.max_sessions) if "session" in weights else None
        self._adapters = Adapters(config.lora_slots) if "lora" in weights else None
        self._cold = ColdPrompts() if "no_hit_lru" in weights else None
        self._unread = Unread() if weights.keys() & QUEUE_SCORERS else None
        of_name = self._by_name()
        self._weighted = [(name, weight, of_name[name]) for name, weight in weights.items()]
        self.needs = frozenset(
            ({"telemetry"} if weights.keys() & TELEMETRY_SCORERS else set()) | ({"prefix"} if self._backlog else set())
        )

    def case(self, workers: Sequence[Worker], request: RoutingRequest) -> Case:
        """Return what is to be scored. A decode leg has no use for a cached prompt."""
        if self._backlog is None:
            return Case(workers, request, ())
        if request.leg is Leg.DECODE:
            return Case(workers, request, [0] * len(workers))
        return Case(workers, request, self._backlog.match(workers, request))

    def sums(self, case: Case) -> tuple[list[float], dict[str, list[float]]]:
        """Return each worker's weighted sum, and the scores it is made of by scorer."""
        sums = [0.0] * len(case.workers)
        scores = {}
        for name, weight, scorer in self._weighted:
            scores[str(name)] = given = scorer(case)
            sums = [sum_ + weight * score for sum_, score in zip(sums, given, strict=True)]
        return sums, scores

    # --- following ---

    def placed(self, worker: Worker, case: Case, now: float) -> None:
        """A worker was chosen at a moment of the pool's clock."""
        request = case.request
        if self._unread is not None:
            self._unread.sent(worker.url, request, now)
        if self._sessions is not None and request.session:
            self._sessions.note(worker.role, request.session, worker.url)
        if self._adapters is not None and (adapter := self._adapter(request)):
            self._adapters.note(worker.url, adapter)
        if request.leg is Leg.DECODE:
            return
        if self._cold is not None and not any(case.cached):
            self._cold.note(worker.url)
        if self._backlog is not None:
            self._backlog.place(worker, request)

    def first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """A prefill is over."""
        if self._unread is not None:
            self._unread.over(worker.url, request)
        if self._backlog is not None:
            self._backlog.first_token(worker, request)
        if self._adapters is not None and (adapter := self._adapter(request)):
            self._adapters.loaded(worker.url, adapter)

    def completed(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt has ended."""
        if self._unread is not None:
            self._unread.over(worker.url, request)
        if self._backlog is not None:
            self._backlog.complete(worker, request, outcome)

    def removed(self, worker: Worker) -> None:
        """A worker left for good."""
        if self._unread is not None:
            self._unread.forget(worker.url)
        if self._backlog is not None:
            self._backlog.remove_worker(worker)
        if self._adapters is not None:
            self._adapters.forget(worker.url)
        if self._cold is not None:
            self._cold.forget(worker.url)

    # --- the scorers ---

    def _by_name(self) -> dict[ScorerName, Scorer]:
        config = self._config
        return {
            "queue": lambda case: least_is_best(self._told(case.workers, _waiting)),
            "running": lambda case: least_is_best(self._told(case.workers, _running)),
            "active": lambda case: least_is_best([worker.load for worker in case.workers]),
            "kv": lambda case: share_left([worker.engine and worker.engine.cache_usage for worker in case.workers], 1),
            "load_aware": lambda case: _halved(share_left(self._told(case.workers, _waiting), config.queue_threshold)),
            "token_load": lambda case: share_left([_tokens(worker) for worker in case.workers], config.token_threshold),
            "prefix": self._prefix,
            "no_hit_lru": self._no_hit_lru,
            "lora": self._lora,
            "session": self._session,
        }

    def _prefix(self, case: Case) -> list[float]:
        prompt, length_weight = case.request.input_tokens, self._config.prefix_length_weight
        return [prefix_score(tokens, prompt, length_weight) for tokens in case.cached]

    def _no_hit_lru(self, case: Case) -> list[float]:
        if any(case.cached) or self._cold is None:
            return [NEUTRAL] * len(case.workers)
        turns = [self._cold.last_turn(worker.url) for worker in case.workers]
        order = sorted(set(turns))
        return least_is_best([order.index(turn) for turn in turns])

    def _lora(self, case: Case) -> list[float]:
        adapter = self._adapter(case.request)
        if adapter is None or self._adapters is None:
            return [NEUTRAL] * len(case.workers)
        return [self._adapters.score(worker.url, adapter) for worker in case.workers]

    def _session(self, case: Case) -> list[float]:
        session = case.request.session
        if not session or self._sessions is None:
            return [NEUTRAL] * len(case.workers)
        home = self._sessions.find(case.workers[0].role, session)
        return [1.0 if worker.url == home else 0.0 for worker in case.workers]

    def _adapter(self, request: RoutingRequest) -> str | None:
        return request.lora or (request.model if request.model in self._config.lora_models else None)

    def _told(self, workers: Sequence[Worker], figure: Callable[[EngineTelemetry], int | None]) -> list[int | None]:
        """Return what each engine tells, with what was sent there since; if none tells, what is in flight on each."""
        told: list[int | None] = []
        for worker in workers:
            engine = worker.engine
            read = None if engine is None else figure(engine)
            if engine is not None and read is not None and self._unread is not None:
                read += self._unread.since(worker.url, engine.observed_at)
            told.append(read)
        if all(one is None for one in told):
            return [worker.load for worker in workers]
        return told


def _waiting(engine: EngineTelemetry) -> int | None:
    return engine.waiting_requests


def _running(engine: EngineTelemetry) -> int | None:
    return engine.running_requests


def _tokens(worker: Worker) -> int:
    return worker.pending_prompt_tokens + worker.decode_tokens


def _halved(scores: list[float]) -> list[float]:
    return [score / 2 for score in scores]
