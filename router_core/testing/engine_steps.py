"""A simulated engine's time: prefills one after another, then one decode step for all sequences together.

One timer serves all sequences, as a decode step does, so hundreds of streams cost little.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from router_core.engine_model.prefix_cache import BLOCK_TOKENS, PrefixCache
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
        cached_tokens: Prompt tokens that came from the prefix cache; known from the first token on.
        done: Resolves when the last token is out.
    """

    __slots__ = (
        "prompt_tokens",
        "blocks",
        "total",
        "position",
        "cached_tokens",
        "done",
        "_on_token",
        "_timer",
        "_pinned",
    )

    def __init__(
        self, prompt_tokens: int, blocks: tuple[int, ...], total: int, on_token: Callable[[int], None]
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.blocks = blocks
        self.total = total
        self.position = 0
        self.cached_tokens = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_token = on_token
        self._timer: asyncio.TimerHandle | None = None
        self._pinned: tuple[int, ...] | None = None


class StepLoop:
    """Runs sequences at the pace of an engine.

    With `ttft_s` given, every prefill takes that long and they overlap. Else the constants decide, and prefills queue
    for the engine as on one GPU: a prompt waits for those before it.

    Attributes:
        prompt_tokens: Prompt tokens of all sequences whose prefill began.
        cached_tokens: How many of them came from the prefix cache.
        generated_tokens: Tokens generated so far.
    """

    def __init__(self, pace: Pace, cache: PrefixCache) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self._pace = pace
        self._cache = cache
        self._waiting: deque[Sequence] = deque()
        self._prefilling: dict[Sequence, None] = {}
        self._decoding: dict[Sequence, None] = {}
        self._queued: Sequence | None = None  # the one of the prefilling that the waiting wait for
        self._step: asyncio.TimerHandle | None = None
        self._due = 0.0

    @property
    def running(self) -> int:
        """Sequences being prefilled or decoded."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def waiting(self) -> int:
        """Sequences whose prefill has not begun."""
        return len(self._waiting)

    @property
    def context_tokens(self) -> int:
        """Tokens of context of all decoding sequences."""
        return sum(sequence.prompt_tokens + sequence.position for sequence in self._decoding)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of the waiting sequences that the cache does not hold now."""
        return sum(s.prompt_tokens - self._cache.match(s.blocks) * BLOCK_TOKENS for s in self._waiting)

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
            is_received: Whether its KV cache came from another engine, so that the first token takes no time.
        """
        sequence = Sequence(prompt_tokens, blocks, total, on_token)
        if is_received:
            self._begin(sequence, 0.0)
            sequence.cached_tokens = prompt_tokens - 1  # vLLM counts as cached what came from elsewhere
        elif self._pace.ttft_s is not None:
            self._begin(sequence, self._pace.ttft_s)
        else:
            self._waiting.append(sequence)
            self._begin_next()
        return sequence

    def abandon(self, sequence: Sequence) -> None:
        """Take a sequence out at once, wherever it is; nothing happens if it has ended already."""
        if sequence.done.done() and sequence._pinned is None:
            return
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        self._end(sequence)

    def _begin_next(self) -> None:
        if self._queued is not None or not self._waiting or self.running >= self._pace.constants.max_running:
            return
        sequence = self._queued = self._waiting.popleft()
        self._begin(sequence, None)

    def _begin(self, sequence: Sequence, seconds: float | None) -> None:
        hits = self._cache.admit(sequence.blocks)
        if hits is not None:  # else the cache is full of running requests: this one goes uncached
            sequence._pinned = sequence.blocks
            # Even a prompt that is cached entirely has its last token computed.
            sequence.cached_tokens = min(hits * BLOCK_TOKENS, sequence.prompt_tokens - 1)
        self.prompt_tokens += sequence.prompt_tokens
        self.cached_tokens += sequence.cached_tokens
        if seconds is None:
            new_tokens = sequence.prompt_tokens - sequence.cached_tokens
            seconds = self._pace.constants.prefill_seconds(new_tokens, sequence.cached_tokens)
        self._prefilling[sequence] = None
        sequence._timer = asyncio.get_running_loop().call_later(seconds, self._first_token, sequence)

    def _first_token(self, sequence: Sequence) -> None:
        sequence._timer = None
        del self._prefilling[sequence]
        self._decoding[sequence] = None
        self._emit(sequence)
        self._plan_step(asyncio.get_running_loop().time())
        if sequence is self._queued:
            self._queued = None
            self._begin_next()

    def _plan_step(self, since: float) -> None:
        if self._step is not None or not self._decoding:
            return
        interval = self._pace.token_interval_s
        if interval is None:
            interval = self._pace.constants.decode_seconds(1, len(self._decoding), self.context_tokens)
        loop = asyncio.get_running_loop()
        # A step that comes a little late shortens the next; a whole step late, and the time is lost: an engine that
        # cannot keep up is slow, it does not burst.
        self._due = max(since + interval, loop.time())
        self._step = loop.call_at(self._due, self._take_step)

    def _take_step(self) -> None:
        self._step = None
        for sequence in tuple(self._decoding):
            self._emit(sequence)
        self._plan_step(self._due)
        self._begin_next()

    def _emit(self, sequence: Sequence) -> None:
        position = sequence.position
        sequence.position = position + 1
        self.generated_tokens += 1
        sequence._on_token(position)
        if sequence.position >= sequence.total:
            self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        if sequence._timer is not None:
            sequence._timer.cancel()
            sequence._timer = None
        self._prefilling.pop(sequence, None)
        self._decoding.pop(sequence, None)
        if sequence._pinned is not None:
            self._cache.release(sequence._pinned)
            sequence._pinned = None
        if sequence is self._queued and sequence.position == 0:
            self._queued = None
        if not sequence.done.done():
            sequence.done.set_result(None)
        self._begin_next()
        if not self._decoding and self._step is not None:
            self._step.cancel()
            self._step = None
