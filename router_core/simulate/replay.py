"""Replays a trace through routers and engines, event by event. The same trace, policy and seed give the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router_core.contract.request import OutcomeStatus, RoutingRequest
from router_core.engine_model.sequence import Sequence as EngineSequence
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.simulate.arrivals import starting_times
from router_core.simulate.contender import Contender
from router_core.simulate.job import Job
from router_core.simulate.prompt import TracePrompt, headers_of
from router_core.simulate.record import FailureReason, RequestRecord, RunRecord
from router_core.simulate.router import Router
from router_core.simulate.scenario import Scenario
from router_core.simulate.simulated_fleet import SimulatedFleet
from router_core.simulate.virtual_time import VirtualTime
from router_core.simulate.yardsticks import GreedyOracle, PooledOracle

Progress = Callable[[int, int], None]
"""Told now and then how many requests have ended, of how many."""

_SAMPLES = 200
_MOST_SAMPLES = 20_000
_PROGRESS_EVERY = 200


class Replay:
    """One run of one policy."""

    def __init__(
        self,
        scenario: Scenario,
        contender: Contender,
        *,
        seed: int = 0,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Build the fleet and start the routers.

        Args:
            scenario: What is replayed.
            contender: The policy.
            seed: Of the policy's random source, and of the arrivals.
            progress: Told how far it is.
            clock: Real seconds, to measure decisions by.

        Raises:
            StartupError: The policy cannot be had, or cannot start.
        """
        self._scenario = scenario
        self._progress = progress
        self._time = VirtualTime()
        self._trace = scenario.trace
        roles = tuple(engine.role for engine in scenario.fleet.engines)
        self._record = RunRecord(contender.label, seed, scenario.start_rate, roles, contender.is_yardstick)
        self._pairs = scenario.fleet.has_pairs
        self._left = len(self._trace.requests)
        self._seed = seed
        self._fleet = SimulatedFleet(
            scenario.fleet,
            self._trace.block_tokens,
            self._time,
            is_pooled=contender.is_yardstick and contender.name == "oracle_pooled",
            on_first_token=self._first_token,
            on_complete=self._complete,
        )
        self._routers = [
            Router(self._manager(contender, clock), seed=f"{seed}/{number}", time=self._time, roles=roles)
            for number in range(scenario.routers)
        ]

    def run(self) -> RunRecord:
        """Let it happen and return what became of it."""
        record, virtual = self._record, self._time
        numbers: dict[int, int] = {}
        for index, request in enumerate(self._trace.requests):
            numbers[id(request)] = index
        starts = starting_times(self._scenario, self._seed)
        for session, start_s in zip(self._trace.sessions, starts, strict=True):
            turns = [numbers[id(request)] for request in session]
            virtual.at(start_s, self._arrive, turns, 0)
        self._fleet.plan_failures(self._died, self._returned)
        if any("telemetry" in router.needs for router in self._routers):
            self._poll()
        sample_s = self._scenario.sample_s
        if sample_s is not None:
            self._fleet.sample_every(sample_s)
        else:  # an answer may take a million times as long as all requests took to come
            self._fleet.sample_every(max(1e-3, max(starts) / _SAMPLES), most=_MOST_SAMPLES)
        try:
            virtual.run()
        finally:
            for router in self._routers:
                router.stop()
        record.samples = self._fleet.samples
        record.busy_s = [worker.busy_s for worker in self._fleet.workers]
        record.ended_s = max((each.ended_s for each in record.requests), default=0.0)
        for router in self._routers:
            record.decisions += router.manager.decision_times.count
            record.decision_s += router.manager.decision_times.seconds
            for (plugin, kind), count in router.manager.faults.items():
                key = f"{plugin}: {kind}"
                record.faults[key] = record.faults.get(key, 0) + count
        return record

    def _manager(self, contender: Contender, clock: Callable[[], float]) -> PolicyManager | PairManager:
        if not contender.is_yardstick:
            return contender.build(has_pairs=self._pairs, clock=clock)
        workers = self._fleet.workers
        greedy = contender.name == "oracle_greedy"
        return contender.build_around(GreedyOracle(workers, self._trace) if greedy else PooledOracle(workers), clock)

    # --- requests ---

    def _arrive(self, session: Sequence[int], position: int) -> None:
        index = session[position]
        request = self._trace.requests[index]
        record = RequestRecord(index, self._time.now_s, request.prompt_tokens, request.output_tokens)
        self._record.requests.append(record)
        turn = session[0] if self._scenario.split == "session" else index
        router = self._routers[turn % len(self._routers)]
        names = router.needed_headers
        headers: Mapping[str, str] = headers_of(request, names, self._scenario.headers) if names else {}
        prompt = TracePrompt(request, self._trace.block_tokens, index)
        routed = RoutingRequest(f"request-{index}", prompt, needs=router.needs, headers=headers)
        self._place(Job(session, position, request, record, router=router, routed=routed))

    def _place(self, job: Job) -> None:
        job.tries += 1
        router, request, record = job.router, job.request, job.record
        if self._pairs:
            pair = router.place_pair(job.routed)
            if pair is None:
                self._failed(job, OutcomeStatus.BACKPRESSURE, FailureReason.NO_WORKER)
                return
            job.prefill, job.placement = pair
            record.worker, record.decode_worker = pair[0].number, pair[1].number
            self._submit(job, job.prefill.number, output_tokens=1)
            return
        job.placement = router.place(job.routed)
        if job.placement is None:
            self._failed(job, OutcomeStatus.BACKPRESSURE, FailureReason.NO_WORKER)
            return
        record.worker = job.placement.number
        self._submit(job, record.worker, output_tokens=request.output_tokens)

    def _submit(self, job: Job, number: int, *, output_tokens: int, is_received: bool = False) -> None:
        request = job.request
        if request.prompt_tokens + output_tokens > self._fleet.workers[number].room_tokens:
            self._refused(job, number)
            return
        blocks = self._trace.full_blocks(request)
        sequence = EngineSequence(request.prompt_tokens, blocks, output_tokens, is_received=is_received)
        sequence.owner = (job, sequence)
        if not self._fleet.submit(number, sequence):  # it died while the KV cache was on its way
            self._lose(job)

    def _first_token(self, owner: tuple[Job, EngineSequence]) -> None:
        job, sequence = owner
        if job.prefill is not None and not sequence.is_received:
            job.record.cached_tokens = sequence.cached_tokens
            job.prefill.first_token()
            return
        if job.prefill is None:
            job.record.cached_tokens = sequence.cached_tokens
        job.record.first_token_s = self._time.now_s
        if job.placement is not None:
            job.placement.first_token()

    def _complete(self, owner: tuple[Job, EngineSequence]) -> None:
        job, sequence = owner
        request = job.request
        # 1. A prefill leg: its KV cache goes to the decode worker.
        if self._pairs and not sequence.is_received:
            if job.prefill is not None:
                job.prefill.complete(
                    OutcomeStatus.SUCCESS,
                    prompt_tokens=request.prompt_tokens,
                    cached_tokens=sequence.cached_tokens,
                    completion_tokens=1,
                )
            fleet = self._scenario.fleet
            transfer_s = fleet.transfer_s + request.prompt_tokens * fleet.transfer_token_s
            self._time.at(self._time.now_s + transfer_s, self._transferred, job, job.tries)
            return
        # 2. The request.
        if job.placement is not None:
            job.placement.complete(
                OutcomeStatus.SUCCESS,
                prompt_tokens=request.prompt_tokens,
                cached_tokens=sequence.cached_tokens,
                completion_tokens=request.output_tokens,
            )
        self._ended(job, OutcomeStatus.SUCCESS)

    def _transferred(self, job: Job, tries: int) -> None:
        if job.tries == tries and job.placement is not None:
            self._submit(job, job.placement.number, output_tokens=job.request.output_tokens, is_received=True)

    def _refused(self, job: Job, number: int) -> None:
        for placement in (job.prefill, job.placement):
            if placement is not None and not placement.is_over:
                is_refusing = placement.number == number
                placement.complete(OutcomeStatus.CLIENT_ERROR if is_refusing else OutcomeStatus.CANCELLED)
        job.prefill = job.placement = None
        job.record.failure = FailureReason.TOO_LONG
        self._ended(job, OutcomeStatus.CLIENT_ERROR)  # a router sends no 400 again

    def _failed(self, job: Job, status: OutcomeStatus, reason: FailureReason) -> None:
        job.prefill = job.placement = None
        if job.tries <= self._scenario.retries:
            job.routed = job.routed.next_attempt()
            self._place(job)
        else:
            job.record.failure = reason
            self._ended(job, status)

    def _ended(self, job: Job, status: OutcomeStatus) -> None:
        record = job.record
        record.status = status
        record.ended_s = self._time.now_s
        self._left -= 1
        if self._progress is not None and self._left % _PROGRESS_EVERY == 0:
            self._progress(len(self._trace.requests) - self._left, len(self._trace.requests))
        if not self._left:
            self._time.stop()
            return
        position = job.position + 1
        if position < len(job.session):
            think_s = self._trace.requests[job.session[position]].think_s
            cap_s = self._scenario.think_cap_s
            self._time.at(
                self._time.now_s + (think_s if cap_s is None else min(think_s, cap_s)),
                self._arrive,
                job.session,
                position,
            )

    # --- the fleet ---

    def _died(self, number: int, lost: list[Any]) -> None:  # Any: the sequences' owners
        for router in self._routers:
            router.set_health(number, is_healthy=False)
        for job, _ in lost:
            self._lose(job)

    def _lose(self, job: Job) -> None:
        # The leg that broke is an error, the other one is cancelled.
        for placement in (job.prefill, job.placement):
            if placement is not None and not placement.is_over:
                is_broken = not self._fleet.workers[placement.number].is_up
                placement.complete(OutcomeStatus.ERROR if is_broken else OutcomeStatus.CANCELLED)
        self._failed(job, OutcomeStatus.ERROR, FailureReason.WORKER_DIED)

    def _returned(self, number: int) -> None:
        for router in self._routers:
            router.set_health(number, is_healthy=True)

    def _poll(self) -> None:
        for router in self._routers:
            if "telemetry" in router.needs:
                router.poll(self._fleet.workers)
        self._time.at(self._time.now_s + self._scenario.telemetry_s, self._poll)
