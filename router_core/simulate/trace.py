"""A workload: requests with their times, lengths and prefix blocks. No files here, no randomness."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import chain


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace.

    Attributes:
        at_s: When it starts, seconds since the start of the trace; in a session, only the first turn's counts.
        prompt_tokens: Tokens of its prompt, at least 1.
        output_tokens: Tokens it generates, at least 1.
        blocks: Chained ids of the prompt's blocks: equal ids mean an equal block and an equal prefix before it. The
            last one may be partial; what comes after the last one is the request's own.
        session: Which conversation it belongs to, None for none.
        think_s: Seconds between the end of the session's turn before and this one; 0 for a first turn.
        user: Who sent it, None if unknown.
        headers: Its headers that matter, each a lower-case name and a value.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    session: str | None = None
    think_s: float = 0.0
    user: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Trace:
    """A workload, in the order of its time stamps.

    Attributes:
        name: What reports call it.
        block_tokens: Tokens in a block.
        requests: All of them.
        is_closed_loop: Whether a turn of a session waits for the turn before it.
    """

    name: str
    block_tokens: int
    requests: tuple[TraceRequest, ...]
    is_closed_loop: bool = False

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise ValueError(f"block_tokens: {self.block_tokens} is not positive")

    @cached_property
    def sessions(self) -> tuple[tuple[TraceRequest, ...], ...]:
        """What starts by itself: sessions with their turns in order, and single requests; by starting time."""
        if not self.is_closed_loop:
            return tuple((request,) for request in self.requests)
        turns: dict[str, list[TraceRequest]] = {}
        alone: list[tuple[TraceRequest, ...]] = []
        for request in self.requests:
            if request.session is None:
                alone.append((request,))
            else:
                turns.setdefault(request.session, []).append(request)
        return tuple(sorted((*alone, *map(tuple, turns.values())), key=lambda each: each[0].at_s))

    @cached_property
    def start_rate(self) -> float:
        """Starts (of requests; in a closed loop, of sessions) per second, as recorded; 0 if all start at once."""
        starts = self.sessions
        span_s = starts[-1][0].at_s - starts[0][0].at_s if starts else 0.0
        return (len(starts) - 1) / span_s if span_s > 0 else 0.0

    def full_blocks(self, request: TraceRequest) -> tuple[int, ...]:
        """Return the ids of a request's full blocks: the ones that can be shared."""
        count = request.prompt_tokens // self.block_tokens
        return request.blocks if count >= len(request.blocks) else request.blocks[:count]

    def first(self, count: int) -> Trace:
        """Return the trace of the first `count` starts."""
        if count >= len(self.sessions):
            return self
        requests = sorted(chain.from_iterable(self.sessions[:count]), key=lambda request: request.at_s)
        return Trace(self.name, self.block_tokens, tuple(requests), self.is_closed_loop)

    @cached_property
    def reuse(self) -> float:
        """Share of prompt tokens that a cache without limits would have had; the most any routing can reach."""
        seen: set[int] = set()
        hits = total = 0
        for request in self.requests:
            total += request.prompt_tokens
            blocks = self.full_blocks(request)
            for block in blocks:
                if block not in seen:
                    break
                hits += self.block_tokens
            seen.update(blocks)
        return hits / total if total else 0.0

    @cached_property
    def block_counts(self) -> Counter[int]:
        """How many requests contain each full block."""
        return Counter(chain.from_iterable(map(self.full_blocks, self.requests)))
