from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.engine_model.prefix_cache import BLOCK_TOKENS, BYTES_PER_TOKEN, PrefixCache, block_hashes, token_count

BLOCK = "x" * (BLOCK_TOKENS * BYTES_PER_TOKEN)


def test_prompts_with_a_common_prefix_share_its_hashes_and_no_others():
    one, other = block_hashes(BLOCK * 3 + "a" * len(BLOCK)), block_hashes(BLOCK * 3 + "b" * len(BLOCK))
    assert one[:3] == other[:3]
    assert one[3] != other[3]
    assert len(set(one)) == 4


def test_a_partial_block_has_no_hash():
    assert block_hashes(BLOCK[:-1]) == ()
    assert len(block_hashes(BLOCK + "tail")) == 1


def test_namespaces_share_nothing():
    assert set(block_hashes(BLOCK * 2)).isdisjoint(block_hashes(BLOCK * 2, namespace="tenant"))


def test_a_text_has_at_least_one_token_and_a_quarter_of_its_bytes():
    assert token_count("") == 1
    assert token_count("four") == 1
    assert token_count("fours") == 2
    assert token_count("äöü") == 2


def test_a_repeated_prompt_hits_entirely():
    cache = PrefixCache(10)
    assert cache.admit((1, 2, 3)) == 0
    cache.release((1, 2, 3))
    assert cache.match((1, 2, 3, 4)) == 3
    assert cache.admit((1, 2, 3, 4)) == 3
    assert (cache.queried_blocks, cache.hit_blocks) == (7, 3)


def test_a_later_block_counts_only_if_all_before_it_are_there():
    cache = PrefixCache(10)
    cache.admit((2, 3))
    assert cache.match((1, 2, 3)) == 0


def test_the_least_recently_used_prompt_goes_first():
    cache = PrefixCache(4)
    for blocks in ((1, 2), (3, 4), (1, 2)):
        cache.admit(blocks)
        cache.release(blocks)
    cache.admit((5, 6))
    assert cache.match((1, 2)) == 2
    assert cache.match((3, 4)) == 0
    assert cache.evicted_blocks == 2


def test_the_tail_of_a_prompt_is_evicted_before_its_head():
    cache = PrefixCache(4)
    cache.admit((1, 2, 3, 4))
    cache.release((1, 2, 3, 4))
    cache.admit((9,))
    assert cache.match((1, 2, 3, 4)) == 3


def test_blocks_of_a_running_request_are_never_evicted():
    cache = PrefixCache(4)
    cache.admit((1, 2, 3))
    assert cache.admit((7, 8)) is None
    assert cache.match((1, 2, 3)) == 3
    assert len(cache) == 3


def test_a_block_of_two_requests_stays_pinned_until_both_end():
    cache = PrefixCache(3)
    cache.admit((1, 2))
    cache.admit((1, 3))
    cache.release((1, 2))
    assert cache.pinned_blocks == 2
    cache.release((1, 3))
    assert cache.pinned_blocks == 0


def test_clear_keeps_what_running_requests_hold():
    cache = PrefixCache(4)
    cache.admit((1,))
    cache.admit((2,))
    cache.release((2,))
    cache.clear()
    assert cache.match((1,)) == 1
    assert cache.match((2,)) == 0


def test_releasing_what_was_not_admitted_is_an_error():
    with pytest.raises(KeyError):
        PrefixCache(4).release((1,))


def test_a_negative_capacity_is_refused():
    with pytest.raises(ValueError, match="capacity_blocks"):
        PrefixCache(-1)


def test_a_cache_of_no_blocks_admits_only_prompts_without_full_blocks():
    cache = PrefixCache(0)
    assert cache.admit(()) == 0
    assert cache.admit((1,)) is None


@given(st.integers(0, 8), st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 12), max_size=6))))
def test_it_never_holds_more_than_fits_nor_loses_a_pinned_block(capacity, steps):
    cache = PrefixCache(capacity)
    running = []
    for is_admission, blocks in steps:
        if is_admission:
            expected = cache.match(blocks)
            hits = cache.admit(blocks)
            if hits is not None:
                assert hits == expected
                running.append(blocks)
        elif running:
            cache.release(running.pop(0))
        held = {block for request in running for block in request}
        assert len(cache) <= capacity
        assert cache.pinned_blocks == len(held)
        assert all(block in cache for block in held)
