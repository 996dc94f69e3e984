"""One request inside an engine: what it needs, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence as Blocks
from enum import Enum


class Stage(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    ASIDE = "aside"
    ENDED = "ended"


class Sequence:
    """One request inside an engine; only the engine changes it.

    Attributes:
        prompt_tokens: Tokens of its prompt.
        blocks: Chained hashes of the prompt's full blocks.
        output_tokens: How many tokens it generates, at least 1.
        is_received: Whether its KV cache came from another engine, so that nothing is left to prefill.
        owner: Whatever whoever submitted it wants to find again.
        stage: Where it stands.
        cached_tokens: Prompt tokens that came from the prefix cache; known from its admission on.
        computed_tokens: Prompt tokens whose KV cache is there.
        private_tokens: Room reserved for the part of the prompt that fills no block, and for the output.
        is_pinned: Whether the cache holds its blocks and that room.
        last_step: The engine's step in which it gets its last token; known from its first one on.
    """

    __slots__ = (
        "prompt_tokens",
        "blocks",
        "output_tokens",
        "is_received",
        "owner",
        "stage",
        "cached_tokens",
        "computed_tokens",
        "private_tokens",
        "is_pinned",
        "last_step",
    )

    def __init__(
        self,
        prompt_tokens: int,
        blocks: Blocks[int],
        output_tokens: int,
        *,
        is_received: bool = False,
        owner: object = None,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.blocks = blocks
        self.output_tokens = output_tokens
        self.is_received = is_received
        self.owner = owner
        self.stage = Stage.WAITING
        self.cached_tokens = 0
        self.computed_tokens = 0
        self.private_tokens = 0
        self.is_pinned = False
        self.last_step = 0
