"""One request on its way through a worker. Plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_core.api import Placement
from router_policy_predicted_latency.linear_model import Features

if TYPE_CHECKING:
    from router_policy_predicted_latency.worker_state import WorkerState


class Flight:
    """One request, or one leg of it, on one worker.

    Attributes:
        state: Its worker's.
        prompt_tokens: The router's estimate of its prompt.
        placement: Its blocks in the mirror; None for a decode leg.
        features: What its prefill's time depends on.
        prefill_s: Predicted seconds of its prefill in the queue.
        placed_at: When it was sent.
        first_token_at: When its first token came, None before.
        is_pending: Whether its prefill waits or runs.
        is_telling: Whether the prefill's time tells the engine's speed; not if it had to wait for memory.
        sums_before: The worker's sums when the first token came.
        last_block: The last block of its prompt, 0 without one.
    """

    __slots__ = (
        "state",
        "prompt_tokens",
        "placement",
        "features",
        "prefill_s",
        "placed_at",
        "first_token_at",
        "is_pending",
        "is_telling",
        "sums_before",
        "last_block",
    )

    def __init__(self, state: WorkerState, prompt_tokens: int, placed_at: float) -> None:
        self.state = state
        self.prompt_tokens = prompt_tokens
        self.placement: Placement | None = None
        self.features: Features = (1.0, 0.0, 0.0)
        self.prefill_s = 0.0
        self.placed_at = placed_at
        self.first_token_at: float | None = None
        self.is_pending = False
        self.is_telling = True
        self.sums_before = (0.0, 0.0, 0.0)
        self.last_block = 0
