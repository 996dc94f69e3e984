"""An engine's prefix cache: which leading blocks of a prompt need no prefill. Counts blocks, stores no contents."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

BYTES_PER_TOKEN = 4
"""UTF-8 bytes of English text per token, roughly, for a vocabulary of about 100,000. A model, not a tokenizer."""

BLOCK_TOKENS = 16
"""Tokens in a block of KV cache: vLLM's default on GPU."""


def token_count(text: str) -> int:
    """Return how many tokens `text` is taken to have; at least 1."""
    return max(1, -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN))


def block_hashes(text: str, *, namespace: str = "", block_tokens: int = BLOCK_TOKENS) -> tuple[int, ...]:
    """Return one hash for each full block of `text`; each covers everything before it too.

    A last, partial block has no hash: engines share full blocks only.

    Args:
        text: The prompt.
        namespace: What else must be equal for two prompts to share cache, such as LoRA adapter and cache salt.
        block_tokens: Tokens in a block.
    """
    data = memoryview(text.encode("utf-8", "surrogatepass"))
    size = block_tokens * BYTES_PER_TOKEN
    digest = xxh3_64_intdigest(namespace.encode())
    hashes = []
    for end in range(size, len(data) + 1, size):
        digest = xxh3_64_intdigest(data[end - size : end], digest)
        hashes.append(digest)
    return tuple(hashes)


class PrefixCache:
    """An engine's KV memory: blocks in least-recently-used order, and room that running requests have to themselves.

    As in vLLM: a request pins its blocks from admission to its end, released blocks stay until the room is needed, and
    of one request's blocks the last goes first, so that what remains is always a usable prefix.

    Attributes:
        capacity_blocks: How many blocks fit.
        block_tokens: Tokens in a block.
        queried_blocks: Blocks asked for by admitted requests, so far.
        hit_blocks: How many of them were there.
        evicted_blocks: Blocks that had to make room, so far.
        private_tokens: Room in use that is no block's: the partial last block of prompts, and output.
    """

    def __init__(self, capacity_blocks: int, block_tokens: int = BLOCK_TOKENS) -> None:
        if capacity_blocks < 0:
            raise ValueError(f"capacity_blocks: {capacity_blocks} is negative; give 0 for no prefix cache at all")
        self.capacity_blocks = capacity_blocks
        self.block_tokens = block_tokens
        self.queried_blocks = 0
        self.hit_blocks = 0
        self.evicted_blocks = 0
        self.private_tokens = 0
        self._pins: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._pins) + len(self._idle)

    def __contains__(self, block: int) -> bool:
        return block in self._pins or block in self._idle

    @property
    def pinned_blocks(self) -> int:
        """Blocks held by running requests; they cannot be evicted."""
        return len(self._pins)

    @property
    def pinned_tokens(self) -> int:
        """Tokens of room that running requests hold."""
        return len(self._pins) * self.block_tokens + self.private_tokens

    def match(self, blocks: Sequence[int]) -> int:
        """Return how many leading `blocks` are cached. Changes nothing, not even the order of eviction."""
        pins, idle = self._pins, self._idle
        for count, block in enumerate(blocks):
            if block not in pins and block not in idle:
                return count
        return len(blocks)

    def admit(self, blocks: Sequence[int], private_tokens: int = 0) -> int | None:
        """Pin a request's blocks and reserve what it needs beside them, evicting idle blocks to make room.

        Every admission needs one `release` of the same blocks and tokens.

        Args:
            blocks: The chained hashes of the request's full blocks.
            private_tokens: Room for what no other request can share.

        Returns:
            How many leading blocks were there already; None, with nothing changed, when pinned blocks leave too little
            room: the request has to wait for others to end, or never fits.
        """
        pins, idle = self._pins, self._idle
        capacity_tokens = self.capacity_blocks * self.block_tokens
        newly_pinned = len(set(blocks).difference(pins))
        private = self.private_tokens + private_tokens
        if (len(pins) + newly_pinned) * self.block_tokens + private > capacity_tokens:
            return None
        hits = self.match(blocks)
        for block in blocks:
            count = pins.get(block)
            if count is None:
                idle.pop(block, None)
                pins[block] = 1
            else:
                pins[block] = count + 1
        self.private_tokens = private
        excess_tokens = (len(pins) + len(idle)) * self.block_tokens + private - capacity_tokens
        if excess_tokens > 0:
            evicted = -(-excess_tokens // self.block_tokens)
            for _ in range(evicted):
                idle.popitem(last=False)
            self.evicted_blocks += evicted
        self.queried_blocks += len(blocks)
        self.hit_blocks += hits
        return hits

    def release(self, blocks: Sequence[int], private_tokens: int = 0) -> None:
        """Unpin an admitted request's blocks: they stay cached until others need the room. Its private room is free.

        Raises:
            KeyError: If one of them is not pinned.
        """
        pins, idle = self._pins, self._idle
        for block in reversed(blocks):
            count = pins[block] - 1
            if count:
                pins[block] = count
            else:
                del pins[block]
                idle[block] = None
        self.private_tokens -= private_tokens

    def clear(self) -> None:
        """Forget all blocks that no running request holds."""
        self._idle.clear()
