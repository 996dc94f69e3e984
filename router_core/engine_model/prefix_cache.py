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
    """Blocks of KV cache, kept in least-recently-used order; blocks of running requests are pinned.

    As in vLLM: a request pins its blocks from admission to its end, released blocks stay until the room is needed, and
    of one request's blocks the last goes first, so that what remains is always a usable prefix.

    Attributes:
        capacity_blocks: How many blocks fit.
        queried_blocks: Blocks asked for by admitted requests, so far.
        hit_blocks: How many of them were there.
        evicted_blocks: Blocks that had to make room, so far.
    """

    def __init__(self, capacity_blocks: int) -> None:
        if capacity_blocks < 0:
            raise ValueError(f"capacity_blocks: {capacity_blocks} is negative; give 0 for no prefix cache at all")
        self.capacity_blocks = capacity_blocks
        self.queried_blocks = 0
        self.hit_blocks = 0
        self.evicted_blocks = 0
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

    def match(self, blocks: Sequence[int]) -> int:
        """Return how many leading `blocks` are cached. Changes nothing, not even the order of eviction."""
        for count, block in enumerate(blocks):
            if block not in self:
                return count
        return len(blocks)

    def admit(self, blocks: Sequence[int]) -> int | None:
        """Pin a request's blocks, evicting idle ones for those that are new.

        Every admission needs one `release` of the same blocks.

        Args:
            blocks: The chained hashes of the request's full blocks.

        Returns:
            How many leading blocks were there already; None, with nothing changed, when pinned blocks leave too little
            room: the request has to wait for others to end, or never fits.
        """
        hits = self.match(blocks)
        wanted = set(blocks)
        newly_pinned = sum(block not in self._pins for block in wanted)
        if len(self._pins) + newly_pinned > self.capacity_blocks:
            return None
        for block in blocks:
            self._idle.pop(block, None)
            self._pins[block] = self._pins.get(block, 0) + 1
        while len(self) > self.capacity_blocks:
            self._idle.popitem(last=False)
            self.evicted_blocks += 1
        self.queried_blocks += len(blocks)
        self.hit_blocks += hits
        return hits

    def release(self, blocks: Sequence[int]) -> None:
        """Unpin an admitted request's blocks: they stay cached until others need the room.

        Raises:
            KeyError: If one of them is not pinned.
        """
        for block in reversed(blocks):
            pins = self._pins[block] - 1
            if pins:
                self._pins[block] = pins
            else:
                del self._pins[block]
                self._idle[block] = None

    def clear(self) -> None:
        """Forget all blocks that no running request holds."""
        self._idle.clear()
