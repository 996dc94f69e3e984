"""What the policy keeps of one worker: who waits for a first token there, who decodes, and how that went."""

from __future__ import annotations

import math
from collections import deque

from router_policy_predicted_latency.flight import Flight
from router_policy_predicted_latency.linear_model import Features, LinearModel

_SAME_STEP_S = 0.002
"""First tokens this close together come out of one step of the engine."""

_STALLED_S = 0.5
"""How much longer than twice its prediction a prefill may take before its worker counts as stalled."""

_PENALTY_S = 0.5
_LONGEST_PENALTY_S = 30.0
"""A worker that fails counts as busy for so long, twice as long each time, until it serves again."""

_EXTRA_SHARE = 0.05
"""Share of each first token in the mean of what prefills take longer than predicted."""

BURST_S = 2.0
"""How far back a burst of requests is looked for."""

AWAY_TICKS = 128
"""How long conversations are remembered after their answer."""

_LEARN_FROM_TOKENS = 16
"""Shorter answers say little of a decode step."""

_LEARN_EVERY_S = 0.1
"""A worker's speed is learned from ten observations a second at most once it is known roughly: more cost CPU."""

_KNOWN_ROUGHLY = 50


class WorkerState:
    """One worker's queue, batch and speed.

    Attributes:
        url: Whose.
        prefill: Seconds of a prefill by (1, new tokens, pairs of a new token and one it attends to).
        decode: Seconds of a decode step by (1, sequences, tokens of context).
        capacity_tokens: How large its cache is believed to be.
        pending_s: Predicted seconds of all prefills that wait or run.
        is_behind: Whether it may have a backlog; if not, `backlog_s` is 0.
        head_due: Until when its backlog is what is left until `queue_due`; later `backlog_s` must be asked.
        queue_due: When the prefills that wait or run are over, as predicted.
        decoding: Requests decoding.
        context_tokens: Their prompts' tokens.
        slower_step_s: Predicted seconds by which they and one more request slow each other's steps down.
        slower_token_s: The same for each token of that request's context.
        flights: Requests there, in any phase.
        prompt_tokens: Tokens of their prompts.
        away: Conversations that were answered there and may come back, by how long ago.
        arrivals: Requests sent there since the last look that are no conversation's next turn.
        arrival_sum: Those before, fading.
        burst_rate: How many of them a second in the last seconds.
        burst_from: From what rate on it is no chance: it holds then, not that of the last minute.
        return_rate: How many requests a second are expected of conversations that are there.
        other_rate: How many of all others.
        fill: How full its cache is, from 0 to 1; next to the fullest one's while its size is not known.
        is_suspect: Whether it was away or broken: its cache may be lost.
    """

    __slots__ = (
        "url",
        "prefill",
        "decode",
        "capacity_tokens",
        "pending_s",
        "is_behind",
        "head_due",
        "queue_due",
        "decoding",
        "context_tokens",
        "slower_step_s",
        "slower_token_s",
        "flights",
        "prompt_tokens",
        "away",
        "arrivals",
        "arrival_sum",
        "burst_rate",
        "burst_from",
        "return_rate",
        "other_rate",
        "fill",
        "is_suspect",
        "_pending",
        "_head_since",
        "_summed_at",
        "_sequence_seconds",
        "_context_seconds",
        "_prefill_seconds",
        "_extra_s",
        "_group",
        "_group_s",
        "_group_at",
        "_failures",
        "_busy_until",
        "_next_prefill_lesson",
        "_next_decode_lesson",
    )

    def __init__(self, url: str, prefill: LinearModel, decode: LinearModel, capacity_tokens: int = 2**62) -> None:
        self.url = url
        self.prefill = prefill
        self.decode = decode
        self.capacity_tokens = capacity_tokens
        self.pending_s = 0.0
        self.is_behind = False
        self.head_due = -math.inf
        self.queue_due = 0.0
        self.decoding = 0
        self.context_tokens = 0
        self.slower_step_s = self.slower_token_s = 0.0
        self.flights = 0
        self.prompt_tokens = 0
        self.away = deque([0] * AWAY_TICKS, AWAY_TICKS)
        self.arrivals = 0
        self.arrival_sum = self.burst_rate = self.burst_from = 0.0
        self.return_rate = self.other_rate = 0.0
        self.fill = 0.0
        self.is_suspect = False
        self._pending: deque[Flight] = deque()
        self._head_since = 0.0
        # Integrals over time, for means over a request's decoding.
        self._summed_at = 0.0
        self._sequence_seconds = self._context_seconds = self._prefill_seconds = 0.0
        self._extra_s = 0.0
        # First tokens out of one step are one observation.
        self._group: Features = (0.0, 0.0, 0.0)
        self._group_s = 0.0
        self._group_at: float | None = None
        self._failures = 0
        self._busy_until = 0.0
        self._next_prefill_lesson = self._next_decode_lesson = 0.0

    # --- asking ---

    def backlog_s(self, now: float) -> float:
        """Return the seconds until the prefills sent there are over, as predicted, or until a failure is forgotten."""
        if now <= self.head_due:
            return self.queue_due - now
        penalty_s = max(0.0, self._busy_until - now)
        if not self._pending:
            return penalty_s
        extra_s = self._extra_s if self._extra_s > 0 else 0.0
        head_s = self._pending[0].prefill_s + extra_s
        elapsed_s = now - self._head_since
        if elapsed_s <= head_s:
            return max(self.queue_due - now, penalty_s)
        # It should be over. Soon, probably; but the later it is, the longer it may still take.
        late_s = elapsed_s - 2 * head_s - _STALLED_S
        rest_s = self.queue_due - self._head_since - head_s
        return max(rest_s + (late_s if late_s > 0 else 0.0), penalty_s)

    # --- following requests ---

    def arrived(self) -> None:
        """A request is sent there that is no conversation's next turn."""
        self.arrivals += 1
        self.burst_rate += 1 / BURST_S
        if self.burst_rate > self.burst_from:
            self.other_rate = self.burst_rate

    def enqueue(self, flight: Flight, now: float) -> None:
        """A request is sent there for its prefill."""
        if not self._pending:
            self._head_since = now
        self.prefill.ask()
        flight.is_pending = True
        self._pending.append(flight)
        self.pending_s += flight.prefill_s
        self.flights += 1
        self.prompt_tokens += flight.prompt_tokens
        self._price_queue()

    def begin_decode_leg(self, flight: Flight, now: float) -> None:
        """A leg is sent there whose prefill happens elsewhere."""
        self.flights += 1
        self.prompt_tokens += flight.prompt_tokens
        self._join_batch(flight, now)

    def first_token(self, flight: Flight, now: float) -> None:
        """A first token came; learns from how long its prefill took."""
        if flight.first_token_at is not None:
            return
        if flight.is_pending:
            began_at = max(flight.placed_at, self._head_since)
            self._leave_queue(flight, now)
            self._join_batch(flight, now)
            took_s = max(0.0, now - began_at)
            self._prefill_seconds += took_s
            self._extra_s += _EXTRA_SHARE * (took_s - flight.prefill_s - self._extra_s)
            self._price_queue()
            if flight.is_telling:
                self._observe_prefill(flight.features, took_s, now)
        else:
            self._sum(now)
        flight.first_token_at = now
        flight.sums_before = (self._sequence_seconds, self._context_seconds, self._prefill_seconds)

    def end(self, flight: Flight, now: float, tokens: int | None) -> None:
        """A request ended, however; learns from its tokens, if it is known how many there were."""
        self.flights -= 1
        self.prompt_tokens -= flight.prompt_tokens
        if flight.is_pending:
            self._leave_queue(flight, now)
            self._price_queue()
            return
        self._sum(now)
        self.decoding -= 1
        self.context_tokens -= flight.prompt_tokens
        self._learn_decode(flight, now, tokens)
        self._price_batch()

    def _learn_decode(self, flight: Flight, now: float, tokens: int | None) -> None:
        if flight.first_token_at is None or tokens is None or tokens < _LEARN_FROM_TOKENS:
            return
        if now < self._next_decode_lesson:
            return
        if self.decode.seen >= _KNOWN_ROUGHLY:
            self._next_decode_lesson = now + _LEARN_EVERY_S
        span_s = now - flight.first_token_at
        sequences, context, prefill = flight.sums_before
        decoded_s = span_s - (self._prefill_seconds - prefill)  # others' prefills held it up meanwhile
        if span_s > 0 and decoded_s > 0.1 * span_s:
            means = (1.0, (self._sequence_seconds - sequences) / span_s, (self._context_seconds - context) / span_s)
            self.decode.learn(means, decoded_s / (tokens - 1))

    def age(self, seconds: float, now: float) -> None:
        """Let `seconds` more have passed: what nothing new was heard of is believed less."""
        if self._group_at is not None and now - self._group_at > _SAME_STEP_S:
            self._end_group(now)
        if not self._pending and self.prefill.age(seconds):
            self._extra_s *= 0.5
        if not self.decoding:
            self.decode.age(seconds)

    def failed(self, now: float) -> None:
        """It did not serve a request as it should."""
        self._failures += 1
        self._busy_until = now + min(_LONGEST_PENALTY_S, _PENALTY_S * 2.0 ** min(self._failures, 10))
        self.is_suspect = True
        self._price_queue()

    def served(self) -> None:
        """It served a request."""
        if self._failures:
            self._failures = 0
            self._busy_until = 0.0
            self._price_queue()

    # --- within ---

    def _join_batch(self, flight: Flight, now: float) -> None:
        self._sum(now)
        self.decode.ask()
        self.decoding += 1
        self.context_tokens += flight.prompt_tokens
        self._price_batch()

    def _price_batch(self) -> None:
        _, sequence_s, context_s = self.decode.coefficients
        decoding = self.decoding
        self.slower_token_s = context_s * decoding
        self.slower_step_s = context_s * self.context_tokens + 2 * sequence_s * decoding

    def _leave_queue(self, flight: Flight, now: float) -> None:
        flight.is_pending = False
        self.pending_s -= flight.prefill_s
        self._head_since = now
        pending = self._pending
        while pending and not pending[0].is_pending:
            pending.popleft()
        if not pending:
            self.pending_s = 0.0  # rounding errors end here

    def _price_queue(self) -> None:
        pending = self._pending
        has_failed = self._failures > 0
        if not pending:
            self.is_behind = has_failed
            self.head_due = -math.inf
            return
        self.is_behind = True
        # What holds an engine up besides prefills, such as full memory, shows in how far apart first tokens come.
        extra_s = self._extra_s if self._extra_s > 0 else 0.0
        since = self._head_since
        self.queue_due = since + self.pending_s + extra_s * len(pending)
        self.head_due = -math.inf if has_failed else since + pending[0].prefill_s + extra_s

    def _observe_prefill(self, features: Features, took_s: float, now: float) -> None:
        if self._group_at is not None and now - self._group_at <= _SAME_STEP_S:
            self._group = (1.0, self._group[1] + features[1], self._group[2] + features[2])
            self._group_s += took_s
            return
        if self._group_at is not None:
            self._end_group(now)
        self._group, self._group_s, self._group_at = features, took_s, now

    def _end_group(self, now: float) -> None:
        self._group_at = None
        if now >= self._next_prefill_lesson:
            self.prefill.learn(self._group, self._group_s)
            if self.prefill.seen >= _KNOWN_ROUGHLY:
                self._next_prefill_lesson = now + _LEARN_EVERY_S

    def _sum(self, now: float) -> None:
        span_s = now - self._summed_at
        self._summed_at = now
        self._sequence_seconds += span_s * self.decoding
        self._context_seconds += span_s * self.context_tokens
