"""The `round_robin` policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

from router_core.api import Leg, PolicyConfig, RoutingRequest, Worker, hookimpl


class RoundRobinPolicy:
    """Let the candidates take turns; each leg has a rotation of its own.

    Turns are remembered by worker, not as a position in a list that shifts: when the candidates change, the one whose
    last turn is longest ago comes next. So nobody is skipped when a worker leaves, and one that comes back or is new
    gets one turn, not a burst.
    """

    class Config(PolicyConfig):
        """`round_robin` has no options."""

    def __init__(self, config: Config) -> None:
        del config
        self._rotations = {leg: _Rotation() for leg in Leg}

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the candidate whose last turn is longest ago."""
        return self._rotations[request.leg].next_of(workers)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """Forget a worker that left for good."""
        for rotation in self._rotations.values():
            rotation.forget(worker)


class _Rotation:
    """An endless order over the candidates, and who had which turn."""

    __slots__ = ("_candidates", "_last_turns", "_turn", "_upcoming")

    def __init__(self) -> None:
        self._candidates: Sequence[Worker] = ()
        self._upcoming: Iterator[Worker] = iter(())
        self._turn = 0
        self._last_turns: dict[str, int] = {}

    def next_of(self, workers: Sequence[Worker]) -> Worker:
        """Give somebody a turn."""
        # The router hands out the same tuple until membership or health changes: comparing identity is enough.
        if self._candidates is not workers:
            self._candidates, self._upcoming = workers, cycle(self._longest_waiting_first(workers))
        worker = next(self._upcoming)
        self._turn += 1
        self._last_turns[worker.url] = self._turn
        return worker

    def forget(self, worker: Worker) -> None:
        """Remember nothing of a worker, and order the others anew."""
        self._last_turns.pop(worker.url, None)
        self._candidates = ()

    def _longest_waiting_first(self, workers: Sequence[Worker]) -> list[Worker]:
        return sorted(workers, key=lambda worker: self._last_turns.get(worker.url, 0))
