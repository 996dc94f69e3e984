"""All engines of a run on virtual time. They die and return as planned; who waits where is noted from time to time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from router_core.contract.worker import WorkerRole
from router_core.engine_model.engine import Engine
from router_core.engine_model.prefix_cache import PrefixCache
from router_core.engine_model.sequence import Sequence
from router_core.simulate.fleet_plan import Failure, FleetPlan
from router_core.simulate.record import Sample
from router_core.simulate.simulated_worker import SequenceListener, SimulatedWorker
from router_core.simulate.virtual_time import VirtualTime

DeathListener = Callable[[int, list[Any]], object]  # Any: the sequences' owners


class SimulatedFleet:
    """Engines as a plan says.

    Attributes:
        plan: What it was built from.
        workers: One for each engine, in order.
        samples: What waited and ran in each of them, from time to time.
    """

    def __init__(
        self,
        plan: FleetPlan,
        block_tokens: int,
        time: VirtualTime,
        *,
        is_pooled: bool,
        on_first_token: SequenceListener,
        on_complete: SequenceListener,
    ) -> None:
        """Begin idle.

        Args:
            plan: What to build.
            block_tokens: Tokens in a block of the trace.
            time: When.
            is_pooled: Whether all engines of a role share one queue and one cache: the yardstick.
            on_first_token: Called with the owner of a sequence whose prefill is over.
            on_complete: Called with the owner of a sequence that has its last token.
        """
        self.plan = plan
        self.samples: list[Sample] = []
        self._time = time
        self._is_pooled = is_pooled
        pools: dict[WorkerRole, tuple[PrefixCache, deque[Sequence]]] = {}
        if is_pooled:
            for role in {engine.role for engine in plan.engines}:
                tokens = sum(engine.constants.cache_tokens for engine in plan.engines if engine.role is role)
                pools[role] = PrefixCache(tokens // block_tokens, block_tokens), deque()
        self.workers: list[SimulatedWorker] = []
        caches = [PrefixCache(each.constants.cache_tokens // block_tokens, block_tokens) for each in plan.engines]
        rooms = [cache.capacity_blocks * block_tokens or math.inf for cache in caches]
        if is_pooled:  # whoever has room takes a request, so each takes what the largest of its role can
            largest = {
                role: max(r for r, e in zip(rooms, plan.engines, strict=True) if e.role is role) for role in pools
            }
            rooms = [largest[each.role] for each in plan.engines]
        for number, (each, cache, room_tokens) in enumerate(zip(plan.engines, caches, rooms, strict=True)):
            engine = Engine(each.constants, *pools.get(each.role, (cache,)))
            self.workers.append(
                SimulatedWorker(
                    number,
                    engine,
                    time,
                    room_tokens=room_tokens,
                    on_first_token=on_first_token,
                    on_complete=on_complete,
                )
            )

    def submit(self, number: int, sequence: Sequence) -> bool:
        """Give a sequence to a worker; False if that one is dead."""
        if not self.workers[number].is_up:
            return False
        self.workers[number].submit(sequence)
        if self._is_pooled:
            for worker in self.workers:
                worker.look()
        return True

    def plan_failures(self, on_death: DeathListener, on_return: Callable[[int], object]) -> None:
        """Let workers die and return when the plan says so.

        Args:
            on_death: Told a worker's number, and the owners of what was lost with it.
            on_return: Told the number of one that is alive again.
        """
        for failure in self.plan.failures:
            self._time.at(failure.at_s, self._fail, failure, on_death, on_return)

    def sample_every(self, seconds: float, *, most: float = math.inf) -> None:
        """Note from now on what waits and what runs.

        Args:
            seconds: Between two samples.
            most: Samples to keep; when there are so many, every other one is dropped and the time between doubled.
        """
        if len(self.samples) >= most:
            del self.samples[1::2]
            seconds *= 2
        engines = [worker.engine for worker in self.workers]
        waiting = tuple(len(engine.waiting) for engine in engines)
        self.samples.append(Sample(self._time.now_s, waiting, tuple(engine.running for engine in engines)))
        self._time.at(self._time.now_s + seconds, partial(self.sample_every, seconds, most=most))

    def _fail(self, failure: Failure, on_death: DeathListener, on_return: Callable[[int], object]) -> None:
        worker = self.workers[failure.worker]
        if not worker.is_up:
            return
        lost = worker.fail()
        role = self.plan.engines[failure.worker].role
        peers = zip(self.workers, self.plan.engines, strict=True)
        if self._is_pooled and not any(peer.is_up for peer, engine in peers if engine.role is role):
            lost += [sequence.owner for sequence in worker.engine.waiting]  # nobody is left to take them
            worker.engine.waiting.clear()
        if failure.back_after_s is not None:
            self._time.at(self._time.now_s + failure.back_after_s, self._return, failure.worker, on_return)
        on_death(failure.worker, lost)

    def _return(self, number: int, on_return: Callable[[int], object]) -> None:
        self.workers[number].is_up = True
        on_return(number)
        self.workers[number].look()
