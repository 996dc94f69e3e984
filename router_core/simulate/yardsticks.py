"""What policies are measured by: choosers that know what no router can know. They take the policies' own path."""

from __future__ import annotations

from collections.abc import Sequence

from router_core.contract.hookspecs import hookimpl
from router_core.contract.policy import least_loaded
from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker
from router_core.simulate.simulated_worker import SimulatedWorker
from router_core.simulate.trace import Trace, TraceRequest


class GreedyOracle:
    """Knows all caches and queues exactly, and takes the engine on which this request gets its first token first."""

    def __init__(self, workers: Sequence[SimulatedWorker], trace: Trace) -> None:
        self._workers = {worker.url: worker for worker in workers}
        self._trace = trace

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker | None:
        """Return the worker with the shortest time to first token; for the decode leg, the least context to read."""
        wanted = self._trace.requests[int(request.id.rpartition("-")[2])]
        tokens = wanted.prompt_tokens + (1 if request.leg is Leg.PREFILL else wanted.output_tokens)
        workers = [worker for worker in workers if tokens <= self._workers[worker.url].room_tokens] or workers
        if request.leg is Leg.DECODE:
            return min(workers, key=lambda worker: (self._workers[worker.url].engine.context_tokens, worker.load))
        blocks = self._trace.full_blocks(wanted)
        return min(workers, key=lambda worker: (self._ttft_s(self._workers[worker.url], wanted, blocks), worker.load))

    @staticmethod
    def _ttft_s(worker: SimulatedWorker, wanted: TraceRequest, blocks: tuple[int, ...]) -> float:
        engine = worker.engine
        cached = min(engine.cache.match(blocks) * engine.cache.block_tokens, wanted.prompt_tokens - 1)
        own_s = engine.constants.prefill_seconds(wanted.prompt_tokens - cached, cached)
        return worker.wait_s() + own_s


class PooledOracle:
    """Gives every request to one queue; whichever engine has time takes it. The fleet has one cache in common then."""

    def __init__(self, workers: Sequence[SimulatedWorker]) -> None:
        self._workers = {worker.url: worker for worker in workers}

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker | None:  # noqa: ARG002
        """Return an idle worker if there is one; who serves it is decided by the engines themselves."""
        idle = [worker for worker in workers if self._workers[worker.url].is_idle]
        return least_loaded(idle or workers)
