"""A trace's request as a router sees it: a prompt whose text is made up, alike where the blocks are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from router_core.contract.prefix import BLOCK_TOKENS, SHORT_BLOCK_TOKENS
from router_core.contract.prefix import BYTES_PER_TOKEN as CHARS_PER_TOKEN
from router_core.contract.request import Namespace
from router_core.simulate.scenario import KeyField
from router_core.simulate.trace import TraceRequest

_MIX_PLACE = 0xC2B2AE3D27D4EB4F
_MIX = 0x9E3779B97F4A7C15  # of Fibonacci hashing: neighbours in number are no neighbours in text
_MASK = (1 << 64) - 1
_OWN = 1 << 63


class TracePrompt:
    """Implements `Prompt`; text and prefix are made on first use, so a policy that needs neither pays for neither."""

    __slots__ = ("_block_tokens", "_number", "_request", "input_tokens", "session", "text_tokens", "user")

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
        self.input_tokens = self.text_tokens = request.prompt_tokens
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


def headers_of(request: TraceRequest, names: Iterable[str], keys: Mapping[str, KeyField]) -> dict[str, str]:
    """Return the headers a request has among those named: the trace's own, else what clients put there by habit.

    Args:
        request: What the trace says.
        names: The lower-case names that somebody needs.
        keys: By header what it holds.
    """
    habits = {name: request.session if keys[name] == "session" else request.user for name in names if name in keys}
    given = dict(request.headers)
    found = {name: given.get(name, habits.get(name)) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def block_ids(request: TraceRequest, block_tokens: int, number: int) -> tuple[int, ...]:
    """Return ids of the router's own blocks of a prompt, out of the trace's.

    A block that ends where one of the trace's does has its id; others are named after the trace's block they end in,
    and the place.
    """
    blocks, tokens = request.blocks, request.prompt_tokens
    ends = range(SHORT_BLOCK_TOKENS, min(tokens, BLOCK_TOKENS) + 1, SHORT_BLOCK_TOKENS)
    ids = [_id_at(end, blocks, block_tokens, number) for end in ends]
    if block_tokens == BLOCK_TOKENS and tokens // BLOCK_TOKENS <= len(blocks):  # the most common one, at no cost
        return (*ids, *blocks[1 : tokens // BLOCK_TOKENS])
    ends = range(2 * BLOCK_TOKENS, tokens + 1, BLOCK_TOKENS)
    return (*ids, *(_id_at(end, blocks, block_tokens, number) for end in ends))


_TAG_CHARS = 16


def _tag(number: int) -> str:
    return f"{number * _MIX & _MASK:016x}"


def _id_at(end: int, blocks: Sequence[int], block_tokens: int, number: int) -> int:
    index, place = divmod(end - 1, block_tokens)
    if index >= len(blocks):
        return ((_OWN + number) * _MIX ^ end * _MIX_PLACE) & _MASK
    block = blocks[index]
    return block if place == block_tokens - 1 else (block * _MIX ^ (place + 1) * _MIX_PLACE) & _MASK
