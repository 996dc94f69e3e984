"""The helpers that policy authors build on."""

from __future__ import annotations

import pytest

from router_core.api import (
    LiteralPrompt,
    RoutingRequest,
    Worker,
    fewest_tokens,
    healthy,
    least_loaded,
    prefix_blocks,
    prefix_tokens,
    rendezvous,
)
from router_core.contract.errors import UndeclaredNeedError
from router_core.contract.prefix import BLOCK_BYTES, SHORT_BLOCK_BYTES, SHORT_BLOCKS


def _workers(*loads: int) -> tuple[Worker, ...]:
    return tuple(Worker(f"http://w{i}", load=load) for i, load in enumerate(loads))


def test_healthy_keeps_order_and_drops_the_rest() -> None:
    workers = (Worker("http://a"), Worker("http://b", is_healthy=False), Worker("http://c"))
    assert healthy(workers) == (workers[0], workers[2])


def test_least_loaded_takes_the_lowest_load() -> None:
    assert least_loaded(_workers(3, 1, 2)).url == "http://w1"


def test_least_loaded_breaks_ties_by_the_oldest_reservation() -> None:
    workers = tuple(Worker(f"http://w{i}", last_reserved=turn) for i, turn in enumerate((7, 3, 5)))
    assert least_loaded(workers).url == "http://w1"


def test_fewest_tokens_counts_prompts_and_context_then_requests() -> None:
    heavy = Worker("http://heavy", load=1, pending_prompt_tokens=900, decode_tokens=200)
    light = Worker("http://light", load=9, decode_tokens=1000)
    assert fewest_tokens((heavy, light)).url == "http://light"
    assert fewest_tokens(_workers(3, 1, 2)).url == "http://w1"


@pytest.mark.parametrize("helper", [least_loaded, fewest_tokens, lambda workers: rendezvous(workers, "key")])
def test_helpers_refuse_an_empty_list(helper) -> None:
    with pytest.raises(ValueError, match="needs at least one worker"):
        helper(())


def test_rendezvous_moves_only_the_keys_of_a_worker_that_left() -> None:
    workers = _workers(0, 0, 0, 0)
    keys = [f"user-{i}" for i in range(400)]
    before = {key: rendezvous(workers, key) for key in keys}
    after = {key: rendezvous(workers[1:], key) for key in keys}
    assert all(after[key] is before[key] for key in keys if before[key] is not workers[0])
    share = sum(worker is workers[0] for worker in before.values())
    assert 60 < share < 140


def test_rendezvous_takes_any_text_json_can_carry() -> None:
    workers = _workers(0, 0)
    assert rendezvous(workers, "\ud800") is rendezvous(workers, "\ud800")


def test_undeclared_text_and_prefix_name_the_remedy() -> None:
    request = RoutingRequest("r", LiteralPrompt(text="hello"))
    for need in ("text", "prefix"):
        with pytest.raises(UndeclaredNeedError, match=f"needs = frozenset\\(\\{{'{need}'\\}}\\)"):
            getattr(request, need)


def _prefix(text: str, **facts: str) -> tuple[int, ...]:
    return RoutingRequest("r", LiteralPrompt(text=text, **facts), needs=frozenset({"prefix"})).prefix


def test_equal_beginnings_have_equal_prefix_hashes() -> None:
    shared = "a" * BLOCK_BYTES * 2
    one, two = _prefix(shared + "b" * BLOCK_BYTES), _prefix(shared + "c" * BLOCK_BYTES)
    assert one[:-1] == two[:-1]
    assert one[-1] != two[-1]
    assert len(one) == SHORT_BLOCKS + 2
    assert _prefix("a" * (2 * BLOCK_BYTES - 1)) == _prefix("a" * BLOCK_BYTES)


def test_short_prompts_meet_in_short_blocks() -> None:
    template = "a" * 2 * SHORT_BLOCK_BYTES
    one, two = _prefix(template + "b" * SHORT_BLOCK_BYTES), _prefix(template + "c" * SHORT_BLOCK_BYTES)
    assert (len(one), len(two)) == (3, 3)
    assert one[:2] == two[:2]
    assert one[2] != two[2]
    assert _prefix("a" * (SHORT_BLOCK_BYTES - 1)) == ()


def test_hashes_cover_the_tokens_they_are_said_to() -> None:
    for size in (SHORT_BLOCK_BYTES, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES, 7 * BLOCK_BYTES):
        assert 0 <= size // 4 - prefix_tokens(len(_prefix("a" * size))) < SHORT_BLOCK_BYTES // 4


def test_model_adapter_and_salt_keep_prefixes_apart() -> None:
    text = "a" * BLOCK_BYTES
    hashes = {_prefix(text), _prefix(text, model="m"), _prefix(text, lora="m"), _prefix(text, cache_salt="m")}
    assert len(hashes) == 4


def test_a_prefix_depends_on_everything_before_it() -> None:
    block = "b" * BLOCK_BYTES
    assert _prefix("a" * BLOCK_BYTES + block)[1] != _prefix("c" * BLOCK_BYTES + block)[1]


def test_lone_surrogates_do_not_break_hashing() -> None:
    assert len(_prefix("\ud800" * BLOCK_BYTES)) == SHORT_BLOCKS + 2


def test_blocks_and_tokens_of_a_prefix_are_each_others_inverse():
    assert [prefix_blocks(prefix_tokens(blocks)) for blocks in range(40)] == list(range(40))
