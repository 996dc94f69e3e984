"""How long an engine's work takes: what a step costs, and the formulas over it. No clock here."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineConstants:
    """What a step of an engine costs; all times in seconds.

    A step computes some new prompt tokens and one new token for each decoding sequence. Its time is linear in all of
    them plus a floor (reading the weights).

    Attributes:
        step_s: Floor of a step, whatever it computes.
        prefill_token_s: For each new prompt token.
        prefill_pair_s: For each pair of a new prompt token and a token of context it attends to.
        decode_context_token_s: For each token of context of a decoding sequence.
        decode_sequence_s: For each decoding sequence.
        step_token_budget: New prompt tokens a step takes at most; a longer prompt is prefilled in chunks.
        max_running: Sequences running at once; others wait.
        cache_tokens: Tokens of KV cache.
    """

    step_s: float
    prefill_token_s: float = 0.0
    prefill_pair_s: float = 0.0
    decode_context_token_s: float = 0.0
    decode_sequence_s: float = 0.0
    step_token_budget: int = 8192
    max_running: int = 256
    cache_tokens: int = 400_000

    def __post_init__(self) -> None:
        for name in ("step_token_budget", "max_running"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive; a step could do nothing")

    def step_seconds(self, new_tokens: int, pairs: float, sequences: int, context_tokens: int) -> float:
        """Return the seconds of one step.

        Args:
            new_tokens: Prompt tokens it computes.
            pairs: Pairs of such a token and a token it attends to.
            sequences: Decoding sequences, which get a token each.
            context_tokens: Tokens of context of all of them together.
        """
        return (
            self.step_s
            + new_tokens * self.prefill_token_s
            + pairs * self.prefill_pair_s
            + sequences * self.decode_sequence_s
            + context_tokens * self.decode_context_token_s
        )

    def prefill_seconds(self, new_tokens: int, cached_tokens: int = 0) -> float:
        """Return the seconds from the start of an undisturbed prefill to its first token.

        Args:
            new_tokens: Prompt tokens to compute.
            cached_tokens: Prompt tokens before them that come from the prefix cache: attended to, not computed.
        """
        steps = max(1, -(-new_tokens // self.step_token_budget))
        # Summed over all chunks, a new token attends to what is cached and to half of the new ones on average.
        pairs = new_tokens * (cached_tokens + new_tokens / 2)
        return steps * self.step_s + new_tokens * self.prefill_token_s + pairs * self.prefill_pair_s

    def decode_seconds(self, steps: int, sequences: int, context_tokens: int = 0) -> float:
        """Return the seconds of `steps` steps in a row that do nothing but decode.

        Args:
            steps: How many.
            sequences: Decoding sequences, the same throughout.
            context_tokens: Tokens of context of all of them together at the beginning; each step adds one a sequence.
        """
        read_tokens = steps * context_tokens + sequences * steps * (steps - 1) / 2
        return steps * (self.step_s + sequences * self.decode_sequence_s) + read_tokens * self.decode_context_token_s

    def decode_steps_until(self, seconds: float, sequences: int, context_tokens: int = 0) -> int:
        """Return after how many steps, at least 1, a run of decode steps ends at or after `seconds`.

        The inverse of `decode_seconds`, rounded up.
        """
        square = sequences * self.decode_context_token_s / 2
        linear = self.step_seconds(0, 0, sequences, context_tokens) - square
        reach = seconds * (1 - 1e-12)  # the end of a step is that step's, whatever floating point makes of it
        if square > 0:
            steps = 2 * reach / (linear + math.sqrt(linear * linear + 4 * square * reach))
        elif linear > 0:
            steps = reach / linear
        else:
            return 1
        return max(1, math.ceil(steps))
