"""How long an engine's work takes: constants of a GPU and model, and the formulas over them. No clock here."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


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
        if self.step_token_budget < 1:
            raise ValueError(f"step_token_budget: {self.step_token_budget} is not positive; a step could do nothing")

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

    def decode_step_seconds(self, sequences: int, context_tokens: int = 0) -> float:
        """Return the seconds of a step that gives each of `sequences` one token.

        Args:
            sequences: Decoding sequences.
            context_tokens: Tokens of context of all of them together.
        """
        return self.step_s + sequences * self.decode_sequence_s + context_tokens * self.decode_context_token_s


FAST = EngineConstants(step_s=0.001)
"""For tests: a token each millisecond, prompts free of charge. No real engine."""

H100_8B = EngineConstants(
    step_s=6e-3,
    prefill_token_s=55.6e-6,
    prefill_pair_s=1.05e-9,
    decode_context_token_s=56e-9,
    decode_sequence_s=20e-6,
)
"""An 8B model in 16 bits on one H100-class GPU of 80 GB; an estimate, not fitted to a measured engine.

What the figures imply: 6 ms reads 16 GB of weights at 2.7 TB/s; 55.6 us computes a token's 16 GFLOP at 290 TFLOP/s;
56 ns reads a token's 131 kB of KV at 2.3 TB/s; 400,000 tokens of cache are 52 GB.
"""

PRESETS = MappingProxyType({"fast": FAST, "h100_8b": H100_8B})
"""The constants by the name a command line knows them by."""
