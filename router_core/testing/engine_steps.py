"""A simulated engine's time: the engine model, step by step, on the event loop's clock.

One timer serves all sequences, as a step does, so hundreds of streams cost little. Where a test says how long a prefill
or a token takes, those sequences stand beside the model: they hold memory, but their time is the test's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from router_core.engine_model import sequence as model
from router_core.engine_model.engine import Engine, Run
from router_core.engine_model.prefix_cache import PrefixCache
from router_core.engine_model.timing import EngineConstants


class Pace(Protocol):
    """How fast the engine is; read anew at every step, so a test may change it at any time."""

    constants: EngineConstants
    ttft_s: float | None
    token_interval_s: float | None


class Sequence:
    """One request inside the engine.

    Attributes:
        prompt_tokens: Tokens of its prompt.
        total: How many tokens it generates.
        position: How many it has so far.
        done: Resolves when the last token is out.
    """

    __slots__ = ("prompt_tokens", "total", "position", "done", "_modelled", "_on_token", "_timer")

    def __init__(self, modelled: model.Sequence, on_token: Callable[[int], None]) -> None:
        self.prompt_tokens = modelled.prompt_tokens
        self.total = modelled.output_tokens
        self.position = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._modelled = modelled
        self._on_token = on_token
        self._timer: asyncio.TimerHandle | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache; known from the first token on."""
        return self._modelled.cached_tokens


class StepLoop:
    """Runs sequences at the pace of an engine.

    With `ttft_s` given, every prefill takes that long and they overlap; with `token_interval_s` every sequence gets a
    token that often, whatever else is computed. Else the model decides.
    """

    def __init__(self, pace: Pace, cache: PrefixCache) -> None:
        self._pace = pace
        self._engine = Engine(pace.constants, cache)
        self._batch: dict[model.Sequence, Sequence] = {}  # decoding in the model
        self._prefilling: dict[Sequence, None] = {}  # beside the model, for `ttft_s`
        self._paced: dict[Sequence, None] = {}  # beside the model, for `token_interval_s`
        self._run: Run | None = None
        self._run_timer: asyncio.TimerHandle | None = None
        self._run_due = 0.0
        self._beat_timer: asyncio.TimerHandle | None = None
        self._beat_due = 0.0

    @property
    def running(self) -> int:
        """Sequences being prefilled or decoded."""
        return self._engine.running + len(self._prefilling) + len(self._paced)

    @property
    def waiting(self) -> int:
        """Sequences whose prefill has not begun."""
        return len(self._engine.waiting)

    @property
    def context_tokens(self) -> int:
        """Tokens of context of all decoding sequences."""
        return self._engine.context_tokens + self._paced_context_tokens

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of the waiting sequences that the cache does not hold now."""
        return self._engine.waiting_tokens

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of all sequences whose prefill began."""
        return self._engine.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """How many of them came from the prefix cache."""
        return self._engine.cached_tokens

    @property
    def generated_tokens(self) -> int:
        """Tokens generated so far."""
        return self._engine.generated_tokens

    def submit(
        self,
        prompt_tokens: int,
        blocks: tuple[int, ...],
        total: int,
        on_token: Callable[[int], None],
        *,
        is_received: bool = False,
    ) -> Sequence:
        """Take in a request. Await its `done`, and call `abandon` in any case.

        Args:
            prompt_tokens: Tokens of its prompt.
            blocks: Hashes of the prompt's full blocks.
            total: How many tokens to generate; at least 1.
            on_token: Called at each token with its position, from 0.
            is_received: Whether its KV cache came from another engine, so that there is nothing to prefill.
        """
        modelled = model.Sequence(prompt_tokens, blocks, total, is_received=is_received)
        modelled.owner = sequence = Sequence(modelled, on_token)
        ttft_s = 0.0 if is_received else self._pace.ttft_s
        if ttft_s is None:
            self._engine.submit(modelled)
            self._plan_run()
        else:
            self._engine.admit(modelled, anyway=True)
            self._prefilling[sequence] = None
            loop = asyncio.get_running_loop()
            sequence._timer = loop.call_later(ttft_s, self._prefilled_apart, sequence)
        return sequence

    def abandon(self, sequence: Sequence) -> None:
        """Take a sequence out at once, wherever it is; nothing happens if it has ended already."""
        if sequence._modelled.stage is not model.Stage.ENDED:
            self._end(sequence)

    # --- the model's sequences ---

    def _plan_run(self, since: float | None = None) -> None:
        if self._run is not None:
            return
        self._engine.constants = self._pace.constants
        run = self._run = self._engine.plan(max_steps=1)
        if run is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        # A step that comes a little late shortens the next; a whole step late, and the time is lost: an engine that
        # cannot keep up is slow, it does not burst.
        self._run_due = max((now if since is None else since) + run.seconds, now)
        self._run_timer = loop.call_at(self._run_due, self._end_run)

    def _end_run(self) -> None:
        run, self._run, self._run_timer = self._run, None, None
        if run is None:
            return
        decoded = tuple(self._batch.values())
        finished = self._engine.finish(run)
        for modelled in finished.first_tokens:
            self._first_token(modelled)
        for sequence in decoded:
            self._emit(sequence)
        if self._pace.token_interval_s is not None:
            for modelled in tuple(self._batch):
                self._set_apart(modelled)
        self._plan_run(self._run_due)

    def _first_token(self, modelled: model.Sequence) -> None:
        sequence = modelled.owner
        assert isinstance(sequence, Sequence)  # noqa: S101  # what `submit` put there
        if modelled.stage is model.Stage.DECODING:
            self._batch[modelled] = sequence
        self._emit(sequence)

    # --- those beside it ---

    def _prefilled_apart(self, sequence: Sequence) -> None:
        sequence._timer = None
        del self._prefilling[sequence]
        modelled = sequence._modelled
        self._engine.begin_decoding(modelled)
        self._first_token(modelled)
        if modelled.stage is model.Stage.DECODING:
            if self._pace.token_interval_s is not None:
                self._set_apart(modelled)
            self._plan_run()

    def _set_apart(self, modelled: model.Sequence) -> None:
        sequence = self._batch.pop(modelled)
        self._engine.set_aside(modelled)
        self._paced[sequence] = None
        self._plan_beat(asyncio.get_running_loop().time())

    def _plan_beat(self, since: float) -> None:
        if self._beat_timer is not None or not self._paced:
            return
        interval = self._pace.token_interval_s
        if interval is None:
            interval = self._pace.constants.decode_seconds(1, len(self._paced), self._paced_context_tokens)
        loop = asyncio.get_running_loop()
        self._beat_due = max(since + interval, loop.time())
        self._beat_timer = loop.call_at(self._beat_due, self._beat)

    def _beat(self) -> None:
        self._beat_timer = None
        for sequence in tuple(self._paced):
            self._engine.generated_tokens += 1
            self._emit(sequence)
        self._plan_beat(self._beat_due)

    @property
    def _paced_context_tokens(self) -> int:
        return sum(sequence.prompt_tokens + sequence.position for sequence in self._paced)

    # --- all of them ---

    def _emit(self, sequence: Sequence) -> None:
        position = sequence.position
        sequence.position = position + 1
        sequence._on_token(position)
        if sequence.position >= sequence.total:
            self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        if sequence._timer is not None:
            sequence._timer.cancel()
            sequence._timer = None
        modelled = sequence._modelled
        self._batch.pop(modelled, None)
        self._prefilling.pop(sequence, None)
        self._paced.pop(sequence, None)
        self._engine.abort(modelled)
        if not sequence.done.done():
            sequence.done.set_result(None)
        if not self._paced and self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None
        run = self._run
        if run is not None and not self._batch and all(one.stage is model.Stage.ENDED for one, _ in run.chunks):
            # Nobody is left whom the step would serve.
            if self._run_timer is not None:
                self._run_timer.cancel()
            self._run = self._run_timer = None
        self._plan_run()
