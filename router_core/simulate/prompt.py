"""A trace's request as a router sees it: a prompt whose text is made up, alike where the blocks are alike."""

from __future__ import annotations

from collections.abc import Sequence

from router_core.contract.prefix import BLOCK_BYTES
from router_core.contract.request import Namespace
from router_core.simulate.trace import TraceRequest

CHARS_PER_TOKEN = 4
BLOCK_TOKENS = BLOCK_BYTES // CHARS_PER_TOKEN

_MIX = 0x9E3779B97F4A7C15  # of Fibonacci hashing: neighbours in number are no neighbours in text
_MASK = (1 << 64) - 1
_OWN = 1 << 63


class TracePrompt:
    """Implements `Prompt`; text and prefix are made on first use, so a policy that needs neither pays for neither."""

    __slots__ = ("_block_tokens", "_number", "_request", "input_tokens", "session", "user")

    model: str | None = None
    lora: str | None = None
    cache_salt: str | None = None
    namespace: Namespace = (None, None, None)

    def __init__(self, request: TraceRequest, block_tokens: int, number: int) -> None:
        """Wrap a request.

        Args:
            request: What the trace says.
            block_tokens: Tokens in one of its blocks.
            number: Tells what is this request's own from all others'.
        """
        self._request = request
        self._block_tokens = block_tokens
        self._number = number
        self.input_tokens = request.prompt_tokens
        self.session = request.session
        self.user = request.user

    @property
    def text(self) -> str:
        """About four characters a token; prompts whose first blocks are equal begin with equal text."""
        request, block_tokens = self._request, self._block_tokens
        size = request.prompt_tokens * CHARS_PER_TOKEN
        block_chars = block_tokens * CHARS_PER_TOKEN
        repeats = -(-block_chars // _TAG_CHARS)
        parts = [(_tag(block) * repeats)[:block_chars] for block in request.blocks]
        rest = size - len(parts) * block_chars
        if rest > 0:
            parts.append((_tag(_OWN + self._number) * -(-rest // _TAG_CHARS))[:rest])
        return "".join(parts)[:size]

    @property
    def prefix(self) -> tuple[int, ...]:
        """As many as the text would have hashes, and equal where prefixes are equal."""
        return block_ids(self._request, self._block_tokens, self._number)


def block_ids(request: TraceRequest, block_tokens: int, number: int) -> tuple[int, ...]:
    """Return ids of the router's own blocks of a prompt, out of the trace's."""
    count = request.prompt_tokens // BLOCK_TOKENS
    blocks = request.blocks
    # 1. They are the same.
    if block_tokens == BLOCK_TOKENS and count <= len(blocks):
        return blocks if count == len(blocks) else blocks[:count]
    # 2. The router's are named after the trace's block in which they end, and the place where.
    return tuple(
        _id_at(end, blocks, block_tokens, number) for end in range(BLOCK_TOKENS, count * BLOCK_TOKENS + 1, BLOCK_TOKENS)
    )


_TAG_CHARS = 16


def _tag(number: int) -> str:
    return f"{number * _MIX & _MASK:016x}"


def _id_at(end: int, blocks: Sequence[int], block_tokens: int, number: int) -> int:
    index, place = divmod(end - 1, block_tokens)
    if index < len(blocks):
        return blocks[index] * block_tokens + place
    return -(number << 32) - end
