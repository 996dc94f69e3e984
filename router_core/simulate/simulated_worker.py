"""One engine on virtual time. It knows nothing of routers: it reports first tokens and ends to whoever submitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router_core.engine_model.engine import Engine, Run
from router_core.engine_model.sequence import Sequence
from router_core.simulate.virtual_time import VirtualTime

SequenceListener = Callable[[Any], object]  # Any: the sequence's owner


class SimulatedWorker:
    """Drives an engine from event to event; between two, any number of decode steps pass at once.

    Attributes:
        number: Its place in the fleet.
        url: What routers know it by.
        engine: What is simulated.
        room_tokens: The longest request it takes, prompt and output together; longer ones it refuses.
        is_up: Whether it is alive.
        busy_s: Seconds it has computed so far.
    """

    def __init__(
        self,
        number: int,
        engine: Engine,
        time: VirtualTime,
        *,
        room_tokens: float,
        on_first_token: SequenceListener,
        on_complete: SequenceListener,
    ) -> None:
        """Begin idle.

        Args:
            number: Its place in the fleet.
            engine: What is simulated.
            time: When.
            room_tokens: The longest request it takes.
            on_first_token: Called with the owner of a sequence whose prefill is over.
            on_complete: Called with the owner of a sequence that has its last token.
        """
        self.number = number
        self.url = f"http://worker-{number}"
        self.engine = engine
        self.room_tokens = room_tokens
        self.is_up = True
        self.busy_s = 0.0
        self._time = time
        self._on_first_token = on_first_token
        self._on_complete = on_complete
        self._run: Run | None = None
        self._began_s = 0.0
        self._serial = 0  # of the run: an end that was planned for an earlier one is void

    @property
    def is_idle(self) -> bool:
        """Whether it computes nothing."""
        return self._run is None

    def submit(self, sequence: Sequence) -> None:
        """Take a request in."""
        self.engine.submit(sequence)
        self.look()

    def look(self) -> None:
        """Somebody waits: begin, or end the present run of decode steps with the step that is being taken."""
        if not self.is_up:  # as may be where engines share a queue
            return
        run = self._run
        if run is None:
            self._begin()
        elif run.steps > 1:
            steps = self.engine.steps_until(run, self._time.now_s - self._began_s)
            if steps < run.steps:
                self._run = self.engine.cut(run, steps)
                self._plan_end()

    def fail(self) -> list[Any]:
        """Die: lose all sequences and the cache; returns the owners of what was lost."""
        self.is_up = False
        lost = self.engine.sequences()
        for sequence in lost:
            self.engine.abort(sequence)
        self.engine.cache.clear()
        self._run = None
        self._serial += 1
        return [sequence.owner for sequence in lost]

    def wait_s(self) -> float:
        """Return about how long a request that came now would wait for its prefill to begin."""
        run, queued_s = self._run, self.engine.queued_seconds()
        if run is None:
            return queued_s
        elapsed = self._time.now_s - self._began_s
        if run.chunks:
            return max(0.0, queued_s - elapsed)
        step = self.engine.cut(run, self.engine.steps_until(run, elapsed))
        return queued_s + max(0.0, step.seconds - elapsed)

    def _begin(self) -> None:
        run = self._run = self.engine.plan()
        if run is not None:
            self._began_s = self._time.now_s
            self._plan_end()

    def _plan_end(self) -> None:
        assert self._run is not None  # noqa: S101  # set by whoever calls
        self._serial += 1
        self._time.at(self._began_s + self._run.seconds, self._end, self._serial)

    def _end(self, serial: int) -> None:
        run = self._run
        if serial != self._serial or run is None:
            return
        self.busy_s += run.seconds
        finished = self.engine.finish(run)
        self._run = None
        # The next run is planned before anybody hears of this one: what they submit waits for the step after it.
        self._begin()
        for sequence in finished.first_tokens:
            self._on_first_token(sequence.owner)
        for sequence in finished.completed:
            self._on_complete(sequence.owner)
