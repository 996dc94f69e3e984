"""A continuous-batching engine: who waits, who is prefilled, who decodes, and how long its next steps take.

It has no clock. Whoever drives it asks `plan` for a run of steps, lets the run's seconds pass, and says `finish`:

    engine.submit(sequence)
    while run := engine.plan():
        now += run.seconds
        for sequence in engine.finish(run).completed: ...

As in vLLM: each step gives a token to every decoding sequence and spends what is left of its token budget on prompts,
first come, first served; long prompts are prefilled in chunks. A request is admitted when its prompt and its whole
output fit into memory beside what runs, so nothing is ever preempted. Output blocks are not kept for other requests.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import NamedTuple

from router_core.engine_model.prefix_cache import PrefixCache
from router_core.engine_model.sequence import Sequence, Stage
from router_core.engine_model.timing import EngineConstants


class Run(NamedTuple):
    """Steps in a row in which nobody comes or goes.

    Attributes:
        steps: How many; 1 if any of it is prefill.
        seconds: How long they take together.
        chunks: Who is prefilled in it, and by how many tokens.
    """

    steps: int
    seconds: float
    chunks: tuple[tuple[Sequence, int], ...]


class Finished(NamedTuple):
    """Who got the first token at the end of a run, and who the last; with one token of output it is the same run."""

    first_tokens: tuple[Sequence, ...]
    completed: tuple[Sequence, ...]


class Engine:
    """One engine's queue, batch and memory.

    Attributes:
        constants: What its steps cost; may be replaced at any time.
        cache: Its KV memory.
        waiting: Sequences that are not admitted yet, in the order they came.
        step: Steps taken so far.
        decoding: How many sequences decode.
        context_tokens: Tokens of context of all of them together.
        prompt_tokens: Prompt tokens of all sequences admitted so far.
        cached_tokens: How many of them came from the prefix cache.
        generated_tokens: Tokens generated so far.
    """

    def __init__(self, constants: EngineConstants, cache: PrefixCache, waiting: deque[Sequence] | None = None) -> None:
        """Begin idle.

        Args:
            constants: What its steps cost.
            cache: Its memory; a capacity of 0 blocks means unlimited room and nothing cached.
            waiting: A queue shared with other engines; None for one of its own.
        """
        self.constants = constants
        self.cache = cache
        self.waiting: deque[Sequence] = deque() if waiting is None else waiting
        self._shares_queue = waiting is not None
        self.step = 0
        self.decoding = 0
        self.context_tokens = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self._prefilling: deque[Sequence] = deque()
        self._ends: list[tuple[int, int, Sequence]] = []  # (last step, serial, sequence); aborted ones linger
        self._serial = 0

    @property
    def running(self) -> int:
        """Sequences being prefilled or decoded."""
        return self.decoding + len(self._prefilling)

    @property
    def prefilling(self) -> tuple[Sequence, ...]:
        """Sequences whose prefill has begun and not ended, in order."""
        return tuple(self._prefilling)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of the waiting sequences that the cache does not hold now."""
        cache = self.cache
        return sum(one.prompt_tokens - cache.match(one.blocks) * cache.block_tokens for one in self.waiting)

    def queued_seconds(self) -> float:
        """Return about how long the prompts that are here keep it busy, with the cache and batch of this moment."""
        constants, cache = self.constants, self.cache
        new_tokens, pairs = 0, 0.0
        queued = [(one.prompt_tokens, one.computed_tokens) for one in self._prefilling]
        queued += [
            (one.prompt_tokens, min(cache.match(one.blocks) * cache.block_tokens, one.prompt_tokens - 1))
            for one in self.waiting
        ]
        for prompt_tokens, computed in queued:
            tokens = prompt_tokens - computed
            new_tokens += tokens
            pairs += tokens * (computed + tokens / 2)
        steps = -(-new_tokens // constants.step_token_budget)
        batch_s = steps * constants.step_seconds(0, 0, self.decoding, self.context_tokens)
        return batch_s + new_tokens * constants.prefill_token_s + pairs * constants.prefill_pair_s

    def sequences(self) -> list[Sequence]:
        """Return all sequences inside: decoding, prefilling, and waiting unless the queue is shared."""
        decoding = [sequence for _, _, sequence in self._ends if sequence.stage is Stage.DECODING]
        return [*decoding, *self._prefilling, *(() if self._shares_queue else self.waiting)]

    # --- who comes and goes ---

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; it is looked at when the next run is planned."""
        self.waiting.append(sequence)

    def admit(self, sequence: Sequence, *, anyway: bool = False) -> bool:
        """Pin a sequence's memory and find what of its prompt is cached; False, with nothing changed, if it must wait.

        Args:
            sequence: One that is not admitted yet.
            anyway: Let it run without memory of its own where there is too little: nothing of it is cached then.
        """
        cache = self.cache
        prompt_tokens = sequence.prompt_tokens
        if cache.capacity_blocks:
            private_tokens = prompt_tokens - len(sequence.blocks) * cache.block_tokens + sequence.output_tokens
            hits = cache.admit(sequence.blocks, private_tokens)
            if hits is not None:
                sequence.is_pinned = True
                sequence.private_tokens = private_tokens
                # Even a prompt that is cached entirely has its last token computed.
                sequence.cached_tokens = min(hits * cache.block_tokens, prompt_tokens - 1)
            elif not anyway and cache.pinned_tokens:  # else it would never fit: it runs alone, with all the memory
                return False
        if sequence.is_received:
            sequence.cached_tokens = prompt_tokens - 1  # vLLM counts as cached what came from elsewhere
            sequence.computed_tokens = prompt_tokens
        else:
            sequence.computed_tokens = sequence.cached_tokens
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += sequence.cached_tokens
        return True

    def begin_decoding(self, sequence: Sequence) -> bool:
        """Give an admitted sequence its first token; returns whether it was its last one too."""
        self.generated_tokens += 1
        if sequence.output_tokens <= 1:
            self._release(sequence)
            return True
        sequence.stage = Stage.DECODING
        sequence.last_step = self.step + sequence.output_tokens - 1
        self._serial += 1
        heapq.heappush(self._ends, (sequence.last_step, self._serial, sequence))
        self.decoding += 1
        self.context_tokens += sequence.prompt_tokens + 1
        return False

    def set_aside(self, sequence: Sequence) -> None:
        """Take a decoding sequence out of the batch: it keeps its memory until it is aborted, and gets no tokens."""
        if sequence.stage is Stage.DECODING:
            self._leave_batch(sequence)
            sequence.stage = Stage.ASIDE

    def abort(self, sequence: Sequence) -> None:
        """Take a sequence out at once, wherever it is; nothing happens if it has ended."""
        if sequence.stage is Stage.WAITING:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
        elif sequence.stage is Stage.PREFILLING:
            self._prefilling.remove(sequence)
        elif sequence.stage is Stage.DECODING:
            self._leave_batch(sequence)
        self._release(sequence)

    # --- steps ---

    def plan(self, max_steps: int | None = None) -> Run | None:
        """Admit whom there is room for and return the steps to take next; None when there is nothing to do.

        Args:
            max_steps: The most steps to take together; None for as many as nobody comes or goes in.
        """
        chunks, new_tokens, pairs = self._take_chunks() if self._prefilling or self.waiting else ((), 0, 0.0)
        sequences, context = self.decoding, self.context_tokens
        if chunks:
            return Run(1, self.constants.step_seconds(new_tokens, pairs, sequences, context), chunks)
        if not sequences:
            return None
        ends = self._ends
        while ends[0][2].stage is not Stage.DECODING:
            heapq.heappop(ends)
        steps = ends[0][0] - self.step
        if max_steps is not None and max_steps < steps:
            steps = max_steps
        return Run(steps, self.constants.decode_seconds(steps, sequences, context), ())

    def steps_until(self, run: Run, seconds: float) -> int:
        """Return after how many of a run's steps, at least 1, `seconds` of it are over: where it may be cut short."""
        if run.steps == 1:
            return 1
        steps = self.constants.decode_steps_until(seconds, self.decoding, self.context_tokens)
        return min(run.steps, steps)

    def cut(self, run: Run, steps: int) -> Run:
        """Return the beginning of a decode run that has not ended yet."""
        return Run(steps, self.constants.decode_seconds(steps, self.decoding, self.context_tokens), run.chunks)

    def finish(self, run: Run) -> Finished:
        """Take the steps of a run, which must be the one planned last or cut from it."""
        self.step += run.steps
        tokens = run.steps * self.decoding
        self.context_tokens += tokens
        self.generated_tokens += tokens
        completed: list[Sequence] = []
        ends = self._ends
        while ends and ends[0][0] <= self.step:
            sequence = heapq.heappop(ends)[2]
            if sequence.stage is Stage.DECODING:
                self._leave_batch(sequence)
                self._release(sequence)
                completed.append(sequence)
        if not run.chunks:
            return Finished((), tuple(completed))
        first_tokens: list[Sequence] = []
        for sequence, tokens in run.chunks:
            if sequence.stage is not Stage.PREFILLING:
                continue  # aborted meanwhile
            sequence.computed_tokens += tokens
            if sequence.computed_tokens >= sequence.prompt_tokens:
                self._prefilling.popleft()
                first_tokens.append(sequence)
                if self.begin_decoding(sequence):
                    completed.append(sequence)
        return Finished(tuple(first_tokens), tuple(completed))

    def _take_chunks(self) -> tuple[tuple[tuple[Sequence, int], ...], int, float]:
        """Spend a step's budget on prompts: those begun first, then the waiting, in order, as far as memory allows."""
        budget = self.constants.step_token_budget
        chunks: list[tuple[Sequence, int]] = []
        new_tokens, pairs = 0, 0.0
        for sequence in self._prefilling:
            if budget <= 0:
                break
            computed = sequence.computed_tokens
            tokens = min(budget, sequence.prompt_tokens - computed)
            chunks.append((sequence, tokens))
            budget -= tokens
            new_tokens += tokens
            pairs += tokens * (computed + tokens / 2)
        waiting, prefilling = self.waiting, self._prefilling
        while budget > 0 and waiting and self.running < self.constants.max_running:
            sequence = waiting[0]
            if not self.admit(sequence):
                break
            waiting.popleft()
            sequence.stage = Stage.PREFILLING
            prefilling.append(sequence)
            computed = sequence.computed_tokens
            tokens = min(budget, sequence.prompt_tokens - computed)
            chunks.append((sequence, tokens))
            budget -= tokens
            new_tokens += tokens
            pairs += tokens * (computed + tokens / 2)
        return tuple(chunks), new_tokens, pairs

    def _leave_batch(self, sequence: Sequence) -> None:
        self.decoding -= 1
        left = max(0, sequence.last_step - self.step)
        self.context_tokens -= sequence.prompt_tokens + sequence.output_tokens - left

    def _release(self, sequence: Sequence) -> None:
        sequence.stage = Stage.ENDED
        if sequence.is_pinned:
            sequence.is_pinned = False
            self.cache.release(sequence.blocks, sequence.private_tokens)
