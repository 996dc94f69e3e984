"""The `round_robin` policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

from router_core.api import Leg, PolicyConfig, RoutingRequest, Worker, hookimpl


class _Rotation(NamedTuple):
    """An endless order over one set of candidates."""

    candidates: Sequence[Worker]
    upcoming: Iterator[Worker]


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
        self._turn = 0
        self._last_turns: dict[str, int] = {}
        self._rotations: dict[Leg, _Rotation] = {}

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the candidate whose last turn is longest ago."""
        rotation = self._rotations.get(request.leg)
        # The router hands out the same tuple until membership or health changes: comparing identity is enough.
        if rotation is None or rotation.candidates is not workers:
            rotation = self._rotations[request.leg] = _Rotation(workers, cycle(self._longest_waiting_first(workers)))
        worker = next(rotation.upcoming)
        self._turn += 1
        self._last_turns[worker.url] = self._turn
        return worker

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """Forget a worker that left for good."""
        self._last_turns.pop(worker.url, None)
        self._rotations.clear()

    def _longest_waiting_first(self, workers: Sequence[Worker]) -> list[Worker]:
        return sorted(workers, key=lambda worker: self._last_turns.get(worker.url, 0))
