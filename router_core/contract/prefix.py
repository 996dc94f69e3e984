"""Chained block hashes of a prompt: the key under which prompts with a common prefix meet.

Blocks are short at the beginning and long afterwards, see docs/decisions/0009: most prompts differ early or share a
lot.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

BLOCK_BYTES = 2048
"""Bytes of UTF-8 text in a block, about 512 tokens; the first this many are cut into short blocks."""

SHORT_BLOCK_BYTES = 256
"""Bytes of UTF-8 text in a short block, about 64 tokens."""

SHORT_BLOCKS = BLOCK_BYTES // SHORT_BLOCK_BYTES
"""How many short blocks a prompt begins with."""

BYTES_PER_TOKEN = 4
"""What the estimates of tokens rest on here, as `RoutingRequest.input_tokens` does."""

BLOCK_TOKENS = BLOCK_BYTES // BYTES_PER_TOKEN
SHORT_BLOCK_TOKENS = SHORT_BLOCK_BYTES // BYTES_PER_TOKEN


def chained_block_hashes(text: str, namespace: tuple[str | None, ...] = ()) -> tuple[int, ...]:
    """Return one 64-bit hash for each full block of `text`, each covering everything before it too.

    The first `SHORT_BLOCKS` blocks have `SHORT_BLOCK_BYTES`, all others `BLOCK_BYTES`. A last, partial block has no
    hash: it cannot be shared with a longer prompt.

    Args:
        text: The prompt.
        namespace: What else must be equal for two prompts to share cache, such as model and LoRA adapter.
    """
    data = memoryview(text.encode("utf-8", "surrogatepass"))
    size = len(data)
    digest = xxh3_64_intdigest(repr(namespace).encode()) if any(namespace) else 0
    hashes = []
    for end in range(SHORT_BLOCK_BYTES, min(size, BLOCK_BYTES) + 1, SHORT_BLOCK_BYTES):
        digest = xxh3_64_intdigest(data[end - SHORT_BLOCK_BYTES : end], digest)
        hashes.append(digest)
    for end in range(2 * BLOCK_BYTES, size + 1, BLOCK_BYTES):
        digest = xxh3_64_intdigest(data[end - BLOCK_BYTES : end], digest)
        hashes.append(digest)
    return tuple(hashes)


def prefix_tokens(blocks: int) -> int:
    """Return about how many tokens the first `blocks` blocks of a prompt hold."""
    if blocks <= SHORT_BLOCKS:
        return blocks * SHORT_BLOCK_TOKENS
    return (blocks - SHORT_BLOCKS + 1) * BLOCK_TOKENS


def prefix_blocks(tokens: int) -> int:
    """Return how many blocks hold the first `tokens` tokens of a prompt: the inverse of `prefix_tokens`."""
    if tokens < BLOCK_TOKENS:
        return tokens // SHORT_BLOCK_TOKENS
    return tokens // BLOCK_TOKENS - 1 + SHORT_BLOCKS
