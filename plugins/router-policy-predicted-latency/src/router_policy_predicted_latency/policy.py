"""The `predicted_latency` policy: its options, its hooks, and what it tells the pool. The cost is in `cost`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from router_core.api import (
    Leg,
    OutcomeStatus,
    PolicyConfig,
    PoolContext,
    PrefixIndex,
    RequestOutcome,
    RoutingRequest,
    Worker,
    hookimpl,
    prefix_blocks,
)
from router_policy_predicted_latency.cache_size import FIRST_GUESS_TOKENS, CacheSizes
from router_policy_predicted_latency.cost import cheapest, cheapest_decode
from router_policy_predicted_latency.demand import Demand
from router_policy_predicted_latency.engine_speed import EngineSpeeds
from router_policy_predicted_latency.flight import Flight
from router_policy_predicted_latency.regrets import Regrets
from router_policy_predicted_latency.returns import TICK_S, Returns
from router_policy_predicted_latency.worker_state import WorkerState

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


# An enum's members are slow to look up in Python 3.11.
_SUCCESS = OutcomeStatus.SUCCESS
_PREFILL, _DECODE = Leg.PREFILL, Leg.DECODE


class PredictedLatencyPolicy:
    """Send a request where it, and those that come after it, are predicted to wait least.

    What each worker has in its cache, how long its queue is and how fast it works is not asked but learned from what is
    sent there and when answers come. Prefill legs are placed like whole requests, decode legs where a step is shortest.
    """

    class Config(PolicyConfig):
        """Options of `predicted_latency`: none is needed, all constants are learned."""

        cache_tokens: Annotated[int, Field(gt=0)] | None = None
        """KV cache of every worker, in tokens; learned for each worker if not given."""

        prefill_token_s: Seconds | None = None
        """Seconds to prefill one token, on every worker; learned if not given."""

        prefill_pair_s: Seconds | None = None
        """Seconds more for each token it attends to; goes with `prefill_token_s`."""

        decode_sequence_s: Seconds | None = None
        """Seconds each decoding request adds to a step, on every worker; learned if not given."""

        decode_context_token_s: Seconds | None = None
        """Seconds each token of its context adds; goes with `decode_sequence_s`."""

        decode_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
        """How much a second that decoding requests lose counts against one until a first token."""

        max_blocks: Annotated[int, Field(gt=0)] = 1_000_000
        """Blocks of about 512 tokens to remember over all workers; what was not used for longest goes first."""

        @model_validator(mode="after")
        def _check_constants(self) -> Self:
            for one, other in (
                ("prefill_token_s", "prefill_pair_s"),
                ("decode_sequence_s", "decode_context_token_s"),
            ):
                if (getattr(self, one) is None) != (getattr(self, other) is None):
                    raise ValueError(f"{one} and {other} go together: give both, or none to have them learned")
            return self

    needs = frozenset({"prefix"})

    def __init__(self, config: Config) -> None:
        self._decode_weight = config.decode_weight
        self._index = PrefixIndex(config.cache_tokens or FIRST_GUESS_TOKENS, max_blocks=config.max_blocks)
        self._cache_sizes = CacheSizes(self._index) if config.cache_tokens is None else None
        prefill, prefill_pair = config.prefill_token_s, config.prefill_pair_s
        decode, decode_context = config.decode_sequence_s, config.decode_context_token_s
        self._speeds = EngineSpeeds(
            None if prefill is None or prefill_pair is None else (0.0, prefill, prefill_pair),
            None if decode is None or decode_context is None else (0.0, decode, decode_context),
        )
        self._demand = Demand()
        self._regrets = Regrets()
        self._returns = Returns()
        self._states: dict[str, WorkerState] = {}
        self._workers: dict[str, Worker] = {}
        self._view: tuple[Sequence[Worker], list[WorkerState]] = (), []
        self._flights: dict[RoutingRequest, Flight] = {}
        self._decode_legs: dict[RoutingRequest, Flight] = {}

    # --- choosing ---

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker | None:
        """Return the worker with the least predicted cost."""
        now = self._pool.now()
        view, states = self._view
        if workers is not view:
            states = self._look_at(workers)
        if request.leg is _DECODE:
            return self._select_decode(workers, states, request, now)
        prefix = request.prefix
        prompt_tokens = request.input_tokens
        matched = self._index.match(prefix, workers)
        most = max(matched)
        known_block = prefix[prefix_blocks(most) - 1] if most else 0
        is_uneven = min(matched) < most
        regret_s = self._regrets.seconds(known_block, now) if is_uneven else 0.0
        quote = cheapest(
            states,
            matched,
            prompt_tokens,
            index=self._index,
            demand=self._demand,
            decode_weight=self._decode_weight,
            now=now,
            choose=self._random,
            most=most,
            is_uneven=is_uneven,
            regret_s=regret_s,
        )
        position = quote.position
        cached = matched[position]
        if is_uneven:
            if cached < most:
                self._regrets.spend(known_block, regret_s, quote.credit, now)
            else:
                self._regrets.add(known_block, regret_s, quote.spared, now)
        flight = Flight(states[position], prompt_tokens, now)
        flight.placement = self._index.place(flight.state.url, prefix)
        flight.features = quote.features
        flight.prefill_s = quote.prefill
        flight.is_telling = quote.fits
        if prefix:
            flight.last_block = prefix[-1]
        if not known_block or not self._returns.came(known_block):
            flight.state.arrived()
        flight.state.enqueue(flight, now)
        self._flights[request] = flight
        self._demand.placed(quote, prompt_tokens, cached)
        request.explain(
            _reason(cached, most, quote.credit),
            cost_s=quote.cost,
            wait_s=quote.wait,
            prefill_s=quote.prefill,
            prefill_weight=quote.weight,
            decode_s=quote.decode,
            start_s=quote.start,
            credit_s=quote.credit,
            matched_tokens=cached,
            cached_share=min(cached / max(prompt_tokens, 1), 1.0),
        )
        return workers[position]

    def _select_decode(
        self, workers: Sequence[Worker], states: Sequence[WorkerState], request: RoutingRequest, now: float
    ) -> Worker:
        position, cost_s = cheapest_decode(
            states,
            request.input_tokens,
            index=self._index,
            demand=self._demand,
            now=now,
            choose=self._random,
        )
        flight = self._decode_legs[request] = Flight(states[position], request.input_tokens, now)
        flight.state.begin_decode_leg(flight, now)
        request.explain("shortest_step", cost_s=cost_s)
        return workers[position]

    # --- following ---

    @hookimpl
    def on_first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """A prefill is over: learn how long it took."""
        now = self._pool.now()
        for flights in (self._flights, self._decode_legs) if self._decode_legs else (self._flights,):
            flight = flights.get(request)
            if flight is not None and flight.state.url == worker.url:
                flight.state.first_token(flight, now)
                if flight.placement is not None:
                    self._index.confirm(flight.placement)

    @hookimpl
    def on_request_complete(self, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Take the request off its worker's books and learn from how it went."""
        flights = self._decode_legs if outcome.leg is _DECODE else self._flights
        flight = flights.pop(request, None)
        if flight is None:
            return
        now = self._pool.now()
        state = flight.state
        status = outcome.status
        was_computed = flight.first_token_at is not None or status is _SUCCESS
        state.end(flight, now, outcome.completion_tokens if status is _SUCCESS else None)
        if flight.placement is not None:
            (self._index.release if was_computed else self._index.withdraw)(flight.placement)
            if was_computed and flight.last_block:
                self._returns.left(flight.last_block, state)
        if status is _SUCCESS:
            state.served()
            self._learn(flight, outcome, now)
        elif status in _FAILURES:
            state.failed(now)

    def _learn(self, flight: Flight, outcome: RequestOutcome, now: float) -> None:
        if outcome.leg is not _PREFILL:
            began_at = flight.placed_at if flight.first_token_at is None else flight.first_token_at - flight.prefill_s
            self._demand.served(outcome.completion_tokens, now - max(began_at, flight.placed_at))
        if self._cache_sizes is not None:
            self._cache_sizes.learn(flight, outcome.prompt_tokens, outcome.cached_tokens)

    # --- knowing the pool ---

    @hookimpl
    def on_worker_added(self, worker: Worker) -> None:
        """Begin, or begin again, to follow a worker."""
        self._state(worker)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """Forget a worker that left for good; what its cache held goes little by little."""
        self._states.pop(worker.url, None)
        self._workers.pop(worker.url, None)
        self._index.remove_worker(worker.url)
        self._view = (), []

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Take the pool's clock, and tell now and then what was learned."""
        self._pool = pool
        self._random = pool.random
        pool.every(TICK_S, self._expect)
        pool.every(_UPKEEP_S, self._upkeep)

    def _state(self, worker: Worker) -> WorkerState:
        state = self._states.get(worker.url)
        if state is None:
            index = self._index
            index.add_worker(worker.url)
            capacity_tokens = index.capacity_tokens(worker.url)
            prefill, decode = self._speeds.prefill_model(), self._speeds.decode_model()
            state = WorkerState(worker.url, prefill, decode, capacity_tokens)
            self._returns.newcomer(state, self._states.values())
            self._states[worker.url] = state
            self._workers[worker.url] = worker
        return state

    def _look_at(self, workers: Sequence[Worker]) -> list[WorkerState]:
        """Return what is known of these very workers."""
        states = [self._state(worker) for worker in workers]
        self._view = workers, states
        return states

    def _expect(self) -> None:
        states = self._states.values()
        self._returns.look(states)
        # How much a cache holds is learned late. Until then it may be as small as what the fullest of them has.
        held = [self._index.tokens(state.url) for state in states]
        most = max(held, default=0)
        for state, tokens in zip(states, held, strict=True):
            state.fill = min(1.0, tokens / min(state.capacity_tokens, most)) if tokens else 0.0

    def _upkeep(self) -> None:
        pool, now = self._pool, self._pool.now()
        for url, state in self._states.items():
            worker = self._workers[url]
            if not worker.is_healthy:
                state.is_suspect = True
            if state.flights and not worker.load:
                self._drop_unreserved(state, now)
            state.age(_UPKEEP_S, now)
            pool.gauge("backlog_seconds", state.backlog_s(now), worker=url)
            pool.gauge("cache_tokens", self._index.capacity_tokens(url), worker=url)
            pool.gauge("prefill_seconds_per_1000_tokens", state.prefill.predict(_A_THOUSAND), worker=url)
            pool.gauge(
                "decode_step_seconds",
                state.decode.predict((1.0, float(state.decoding), float(state.context_tokens))),
                worker=url,
            )

    def _drop_unreserved(self, state: WorkerState, now: float) -> None:
        """Forget what was placed on a worker but never sent there, as when a wrapper chose another one."""
        for flights in (self._flights, self._decode_legs):
            for request in [each for each, flight in flights.items() if flight.state is state]:
                flight = flights.pop(request)
                state.end(flight, now, None)
                if flight.placement is not None:
                    self._index.withdraw(flight.placement)


_UPKEEP_S = 5.0
_A_THOUSAND = (1.0, 1_000.0, 500_000.0)
_FAILURES = frozenset({OutcomeStatus.ERROR, OutcomeStatus.TIMEOUT, OutcomeStatus.BACKPRESSURE})


def _reason(cached: int, most: int, credit_s: float) -> str:
    if cached < most:
        return "hot_prefix" if credit_s else "shorter_queue"
    return "cache_hit" if cached else "cache_miss"
