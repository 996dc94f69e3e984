"""A trace's request as a router sees it: text and prefix blocks are alike exactly where the trace's blocks are."""

from __future__ import annotations

import pytest

from router_core.contract.prefix import chained_block_hashes
from router_core.simulate.prompt import TracePrompt
from router_core.simulate.trace import TraceRequest


def common(first, second):
    return next((i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), len(first))


def prompts(block_tokens, *requests):
    return [
        TracePrompt(TraceRequest(0.0, tokens, 1, blocks), block_tokens, number)
        for number, (tokens, blocks) in enumerate(requests)
    ]


@pytest.mark.parametrize("block_tokens", [16, 64, 100, 512, 1000])
@pytest.mark.parametrize("tokens", [1, 63, 64, 511, 512, 700, 1024, 5000])
def test_the_prefix_has_as_many_blocks_as_the_text(block_tokens, tokens):
    for blocks in (tuple(range(tokens // block_tokens)), tuple(range(-(-tokens // block_tokens))), ()):
        (prompt,) = prompts(block_tokens, (tokens, blocks))
        assert len(prompt.text) == tokens * 4
        assert len(prompt.prefix) == len(chained_block_hashes(prompt.text))
        assert len(set(prompt.prefix)) == len(prompt.prefix)


@pytest.mark.parametrize("block_tokens", [16, 64, 512])
def test_prompts_are_alike_as_far_as_their_blocks(block_tokens):
    count = 4096 // block_tokens
    shared = tuple(range(count // 2))
    first, second = prompts(
        block_tokens,
        (4096, (*shared, *range(1000, 1000 + count // 2))),
        (4096, (*shared, *range(2000, 2000 + count // 2))),
    )
    hashes = chained_block_hashes(first.text), chained_block_hashes(second.text)
    assert common(first.prefix, second.prefix) == common(*hashes) == 8 + 3
    assert 2048 * 4 <= common(first.text, second.text) < 2048 * 4 + 16


def test_what_follows_the_blocks_is_a_requests_own():
    first, second = prompts(64, (300, (1, 2)), (300, (1, 2)))
    assert common(first.prefix, second.prefix) == 2
    assert 128 * 4 <= common(first.text, second.text) < 128 * 4 + 16


def test_a_partial_last_block_is_shared_as_the_trace_says():
    first, second = prompts(512, (700, (1, 2)), (900, (1, 2)))
    assert second.text.startswith(first.text)
