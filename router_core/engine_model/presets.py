"""Constants of some GPUs and models, by the names a command line knows them by. Estimates, not fitted to real engines.

Each is told by what it does unlike the engine it is derived from.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from router_core.engine_model.timing import EngineConstants

FAST = EngineConstants(step_s=0.001)
"""For tests: a token each millisecond, prompts free of charge. No real engine."""

H100_8B = EngineConstants(
    step_s=6e-3,
    prefill_token_s=55.6e-6,
    prefill_pair_s=1.05e-9,
    decode_context_token_s=56e-9,
    decode_sequence_s=20e-6,
)
"""An 8B model in 16 bits on one H100-class GPU of 80 GB.

6 ms read 16 GB of weights at 2.7 TB/s; 55.6 us compute a token's 16 GFLOP at 290 TFLOP/s; 56 ns read a token's 131 kB
of KV at 2.3 TB/s; 400,000 tokens of cache are 52 GB.
"""

A100_8B = replace(
    H100_8B,
    step_s=10e-3,
    prefill_token_s=107e-6,
    prefill_pair_s=2.0e-9,
    decode_context_token_s=82e-9,
    decode_sequence_s=25e-6,
)
"""The same model on an A100 of 80 GB: half the arithmetic (150 TFLOP/s), 1.6 TB/s, the same memory."""

H200_8B = replace(H100_8B, step_s=4.1e-3, decode_context_token_s=34e-9, cache_tokens=800_000)
"""The same model on an H200: the same arithmetic, 3.9 TB/s, 105 GB of cache."""

L4_8B_FP8 = EngineConstants(
    step_s=32e-3,
    prefill_token_s=267e-6,
    prefill_pair_s=5e-9,
    decode_context_token_s=524e-9,
    decode_sequence_s=40e-6,
    step_token_budget=2048,
    cache_tokens=92_000,
)
"""The same model in 8 bits on an L4 of 24 GB: 60 TFLOP/s, 250 GB/s, 12 GB of cache, smaller steps."""

H100X4_70B = EngineConstants(
    step_s=15e-3,
    prefill_token_s=142e-6,
    prefill_pair_s=1.3e-9,
    decode_context_token_s=36e-9,
    decode_sequence_s=30e-6,
)
"""A 70B model in 16 bits on four H100 with tensor parallelism.

140 GB of weights over four cards and 2 ms of communication make the floor; 140 GFLOP a token at 990 TFLOP/s; 328 kB of
KV a token, so that 132 GB hold 400,000.
"""

PRESETS = MappingProxyType(
    {
        "fast": FAST,
        "h100_8b": H100_8B,
        "a100_8b": A100_8B,
        "h200_8b": H200_8B,
        "l4_8b_fp8": L4_8B_FP8,
        "h100x4_70b": H100X4_70B,
    }
)
"""All of them."""
