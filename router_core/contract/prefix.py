"""Chained block hashes of a prompt: the key under which prompts with a common prefix meet."""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

BLOCK_BYTES = 2048
"""Bytes of UTF-8 text in a block, about 512 tokens."""


def chained_block_hashes(text: str, namespace: tuple[str | None, ...] = ()) -> tuple[int, ...]:
    """Return one 64-bit hash for each full block of `text`, each covering everything before it too.

    A last, partial block has no hash: it cannot be shared with a longer prompt.

    Args:
        text: The prompt.
        namespace: What else must be equal for two prompts to share cache, such as model and LoRA adapter.
    """
    data = memoryview(text.encode("utf-8", "surrogatepass"))
    digest = xxh3_64_intdigest(repr(namespace).encode()) if any(namespace) else 0
    hashes = []
    for end in range(BLOCK_BYTES, len(data) + 1, BLOCK_BYTES):
        digest = xxh3_64_intdigest(data[end - BLOCK_BYTES : end], digest)
        hashes.append(digest)
    return tuple(hashes)
