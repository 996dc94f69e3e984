import random
from collections import Counter

import pytest

from router_core.api import Leg, OutcomeStatus, WorkerRole
from router_core.contract.worker import assign
from router_core.testing.conformance import PolicyHarness, make_request, make_workers
from router_policy_cache_aware import CacheAwarePolicy
from router_policy_cache_aware.compat_tree import OriginalTree

ORIGINAL, FIRST_RELEASE = "sglang-0.3.2", "tree_size"


def make_harness(compat, workers=3, **options):
    return PolicyHarness(CacheAwarePolicy(CacheAwarePolicy.Config(compat=compat, **options)), workers)


def serve(harness, text, **facts):
    (worker,) = harness.serve(make_request(text, needs={"text"}, **facts))
    return worker.url


def chars_of(harness):
    return dict(harness.policy._rules.tree_chars())


@pytest.mark.parametrize("compat", [ORIGINAL, FIRST_RELEASE])
def test_same_prompt_stays_with_its_creator(compat):
    harness = make_harness(compat)
    home = serve(harness, "hello world")
    assert {serve(harness, "hello world and more") for _ in range(5)} == {home}


@pytest.mark.parametrize("compat", [ORIGINAL, FIRST_RELEASE])
def test_creator_answers_though_another_that_knows_it_is_idle(compat):
    harness = make_harness(compat, 2)
    first, second = harness.workers
    serve(harness, "hello world")
    assign(first, load=100)
    assert serve(harness, "hello world") == second.url
    assign(first, load=60)
    assert serve(harness, "hello world") == first.url


def test_misses_go_to_the_lowest_load_and_the_first_of_equals():
    harness = make_harness(ORIGINAL)
    first, second, _ = harness.workers
    assert [serve(harness, letter * 9) for letter in "abcd"] == [first.url] * 4
    assign(first, load=1)
    assert serve(harness, "e" * 9) == second.url


def test_misses_of_the_first_release_go_to_the_smallest_tree_however_busy():
    harness = make_harness(FIRST_RELEASE)
    first, second, third = harness.workers
    assert serve(harness, "a" * 10) == first.url
    assert serve(harness, "b" * 5) == second.url
    assign(third, load=50)
    assert serve(harness, "c" * 3) == third.url
    assert serve(harness, "d" * 1) == third.url


def test_fresh_worker_of_the_first_release_draws_everything():
    harness = make_harness(FIRST_RELEASE, 2)
    rng = random.Random(1)
    prompts = ["".join(rng.choices("abcdefgh", k=50)) for _ in range(60)]
    for text in prompts[:40]:
        serve(harness, text)
    fresh = make_workers(1, WorkerRole.REGULAR)[0]
    assign(fresh, url="http://fresh")
    harness.add_worker(fresh)
    assert Counter(serve(harness, text) for text in prompts[40:56])["http://fresh"] == 16


@pytest.mark.parametrize("compat", [ORIGINAL, FIRST_RELEASE])
def test_uneven_loads_take_the_first_of_the_shortest_queues(compat):
    harness = make_harness(compat)
    assign(harness.workers[0], load=100)
    assert {serve(harness, text) for text in ("one", "two", "three")} == {harness.workers[1].url}


def test_load_range_covers_unhealthy_workers_that_are_passed():
    harness = make_harness(ORIGINAL)
    first, second, third = harness.workers
    for worker in (first, second):
        assign(worker, load=80)
    assign(third, is_healthy=False)
    request = make_request("hello", needs={"text"})
    assert harness.policy.select_single(harness.workers, request) is first
    assert request.reason == "imbalanced"


def test_lost_owner_is_forgotten_and_the_first_candidate_takes_over():
    harness = make_harness(ORIGINAL)
    first, second, _ = harness.workers
    assign(first, load=1)
    assert serve(harness, "hello world") == second.url
    assert serve(harness, "another one") == second.url
    assign(first, load=5)
    harness.set_health(second, healthy=False)
    assert serve(harness, "hello world") == first.url
    assert second.url not in chars_of(harness)
    assert first.url not in {url for url, chars in chars_of(harness).items() if chars}  # and nothing is learned
    harness.set_health(second, healthy=True)
    request = make_request("another one", needs={"text"})
    harness.serve(request)
    assert request.reason == "cache_miss"


def test_nobody_healthy_is_none():
    harness = make_harness(ORIGINAL)
    for worker in harness.workers:
        assign(worker, is_healthy=False)
    request = make_request("hello", needs={"text"})
    assert harness.policy.select_single(harness.workers, request) is None
    assert harness.policy.select_pair(harness.workers, harness.workers, request) is None


def test_failed_requests_teach():
    harness = make_harness(ORIGINAL)
    harness.select(make_request("hello world")).complete(OutcomeStatus.ERROR)
    assert sum(chars_of(harness).values()) == 11


def test_limit_holds_for_each_worker_and_only_at_the_interval():
    harness = make_harness(ORIGINAL, 2, max_tree_size=30, eviction_interval_secs=60)
    first, second = harness.workers
    for letter in "abcde":
        serve(harness, letter * 10)
    assign(first, load=1)
    for letter in "fghij":
        serve(harness, letter * 10)
    assert chars_of(harness) == {first.url: 50, second.url: 50}
    harness.pool.advance(60)
    assert chars_of(harness) == {first.url: 30, second.url: 30}
    assign(first, load=0)
    request = make_request("a" * 10, needs={"text"})
    harness.serve(request)
    assert request.reason == "cache_miss"  # the longest unused went first


def test_worker_that_left_is_forgotten_at_once():
    harness = make_harness(ORIGINAL)
    first = harness.workers[0]
    serve(harness, "hello world")
    harness.remove_worker(first)
    assert first.url not in chars_of(harness)


def test_models_have_trees_of_their_own():
    harness = make_harness(ORIGINAL)
    serve(harness, "hello world", model="one")
    request = make_request("hello world", model="two", needs={"text"})
    harness.serve(request)
    assert request.reason == "cache_miss"


def test_decode_takes_the_first_of_the_least_loaded():
    harness = make_harness(ORIGINAL, (*make_workers(2, WorkerRole.PREFILL), *make_workers(2, WorkerRole.DECODE)))
    assert [harness.serve(make_request("x"))[1].url for _ in range(2)] == ["http://decode-0"] * 2
    single = harness.select(make_request("x", leg=Leg.DECODE), WorkerRole.DECODE)
    assert single.worker.url == "http://decode-0"


def test_by_default_the_policys_own_rules_hold():
    harness = make_harness(None)
    assert len({serve(harness, letter * 9) for letter in "abc"}) == 3


def test_original_tree_conserves_characters():
    rng = random.Random(3)
    tree, held = OriginalTree(), {}
    for _ in range(400):
        tenant, text = rng.choice("abc"), "".join(rng.choices("xy", k=rng.randrange(1, 9)))
        tree.insert(text, tenant)
        held.setdefault(tenant, set()).update(text[: n + 1] for n in range(len(text)))
        assert tree.tenant_chars == {tenant: len(prefixes) for tenant, prefixes in held.items()}
        assert tree.prefix_match(text + "z")[0] == len(text)
    tree.evict_tenants_by_size(5)
    assert all(chars <= 5 for chars in tree.tenant_chars.values())
    for tenant in "abc":
        tree.remove_tenant(tenant)
    assert tree.tenant_chars == {}
    assert tree._root.children == {}
