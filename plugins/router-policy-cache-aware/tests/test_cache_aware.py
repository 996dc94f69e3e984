import logging
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from router_core.api import Leg, OutcomeStatus, Worker, WorkerRole
from router_core.contract.worker import assign
from router_core.testing.conformance import FakePool, PolicyHarness, make_request, make_worker, make_workers
from router_policy_cache_aware import CacheAwarePolicy

NEEDS = CacheAwarePolicy.needs


def make_policy(**options):
    return CacheAwarePolicy(CacheAwarePolicy.Config(**options))


def make_harness(workers=2, **options):
    return PolicyHarness(make_policy(**options), workers)


def request(text, **facts):
    return make_request(text, needs=NEEDS, **facts)


def serve(harness, text, **facts):
    """Serve a request to its end; return the url of who did."""
    (worker,) = harness.serve(request(text, **facts))
    return worker.url


def reason(harness, text, **facts):
    asked = request(text, **facts)
    harness.serve(asked)
    return asked.reason


def distinct(seed, count, size=200):
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=size)) for _ in range(count)]


def tree_of(harness):
    return harness.policy._rules._tree


# --- following a prefix ---


def test_same_and_extended_prompts_stay_on_one_worker_while_loads_are_even():
    harness = make_harness(4)
    for text in distinct(1, 20):
        home = serve(harness, text)
        assert {serve(harness, text), serve(harness, text + " and more"), serve(harness, text)} == {home}


@pytest.mark.parametrize("count", [1, 4, 16, 64])
def test_every_hot_prompt_keeps_its_worker(count):
    harness = make_harness(count)
    prompts = distinct(2, 40)
    homes = {text: serve(harness, text) for text in prompts}
    rng = random.Random(2)
    for text in rng.choices(prompts, k=400):
        assert serve(harness, text + str(rng.random())) == homes[text]


@pytest.mark.parametrize(("tail", "expected"), [("x" * 7, "cache_miss"), ("x" * 6, "cache_hit")])
def test_share_must_exceed_the_threshold(tail, expected):
    harness = make_harness()
    serve(harness, "abc")
    assert reason(harness, "abc" + tail) == expected  # 3 of 10, 3 of 9


@pytest.mark.parametrize("percent", range(1, 100))
def test_exactly_the_threshold_is_a_miss_whatever_its_rounding(percent):
    harness = make_harness(cache_threshold=percent / 100)
    serve(harness, "y" * percent)
    assert reason(harness, "y" * percent + "x" * (100 - percent)) == "cache_miss"


def test_one_character_above_the_threshold_is_a_hit():
    harness = make_harness(cache_threshold=0.5)
    serve(harness, "y" * 51)
    assert reason(harness, "y" * 51 + "x" * 49) == "cache_hit"


def test_share_is_of_characters_not_bytes():
    harness = make_harness(cache_threshold=0.5)
    serve(harness, "深圳市")
    asked = request("深圳市abc")  # 3 of 6 characters, though 9 of 12 bytes
    harness.serve(asked)
    assert asked.reason == "cache_miss"
    assert asked.reason_parts == {"matched": 3, "ratio": 0.5}
    assert reason(harness, "深圳市ab") == "cache_hit"


def test_prompts_that_fork_inside_a_code_point_share_nothing_of_it():
    harness = make_harness(cache_threshold=0.0)
    serve(harness, "深")
    assert reason(harness, "深圳") == "cache_hit"
    assert reason(harness, "淲") == "cache_miss"


def test_empty_prompt_is_a_miss_and_teaches_nothing():
    harness = make_harness(cache_threshold=0.0)
    assert [reason(harness, "") for _ in range(2)] == ["cache_miss"] * 2
    assert tree_of(harness).chars == 0


def test_of_several_that_know_a_prefix_the_least_loaded_is_taken():
    harness = make_harness(2, balance_abs_threshold=1, balance_rel_threshold=1.0)
    first = harness.select(request("hello world"))
    held = [first, harness.select(request("hello world"))]
    second = harness.select(request("hello world"))  # uneven by now, so the other learns it too
    assert second.worker is not first.worker
    for attempt in held:
        attempt.complete()
    asked = request("hello world")
    assert harness.select(asked).worker is first.worker  # 0 in flight against 1
    assert asked.reason == "cache_hit"


@pytest.mark.parametrize("fact", ["model", "lora", "cache_salt"])
def test_prompts_of_unlike_namespaces_share_nothing(fact):
    harness = make_harness(2)
    serve(harness, "hello world", **{fact: "one"})
    assert reason(harness, "hello world", **{fact: "two"}) == "cache_miss"
    assert reason(harness, "hello world", **{fact: "one"}) == "cache_hit"


def test_two_pools_share_nothing():
    one, other = make_harness(2), make_harness(2)
    serve(one, "hello world")
    assert reason(other, "hello world") == "cache_miss"


# --- a miss ---


def test_misses_one_after_the_other_spread():
    harness = make_harness(4)
    counts = Counter(serve(harness, text) for text in distinct(3, 100))
    assert set(counts.values()) == {25}


def test_misses_at_once_spread():
    harness = make_harness(4)
    counts = Counter(harness.select(request(text)).worker.url for text in distinct(4, 100))
    assert set(counts.values()) == {25}


def test_miss_goes_to_the_smallest_tree_among_the_least_loaded():
    harness = make_harness(3)
    a, b, c = harness.workers
    serve(harness, "a" * 100)
    serve(harness, "b" * 50)
    serve(harness, "c" * 80)
    assert serve(harness, "x" * 10) == b.url
    assign(b, load=1)
    assert serve(harness, "y" * 10) == c.url
    assign(c, load=1)
    assert serve(harness, "z" * 10) == a.url


def test_load_counts_before_room():
    harness = make_harness(2)
    first, second = harness.workers
    serve(harness, "a" * 100)
    assign(second, load=1)
    assert serve(harness, "b" * 100) == first.url


@pytest.mark.parametrize("advance_s", [0, 1])
def test_fresh_worker_does_not_draw_everything(advance_s):
    harness = make_harness(4)
    prompts = distinct(5, 600, 3000)
    for text in prompts[:400]:
        serve(harness, text)
    gone = harness.workers[0]
    harness.remove_worker(gone)
    harness.add_worker(Worker(gone.url))
    counts = Counter()
    for text in prompts[400:]:
        counts[serve(harness, text)] += 1
        harness.pool.advance(advance_s)
    assert 200 / 4 <= counts[gone.url] < 200 / 2


def test_fresh_worker_catches_up_as_its_head_start_melts():
    harness = make_harness(2)
    for text in distinct(6, 100):
        serve(harness, text)
    harness.add_worker(make_worker("http://fresh"))
    assert serve(harness, "first of the newcomer") == "http://fresh"
    harness.pool.advance(3 * 3600)
    counts = Counter(serve(harness, text) for text in distinct(7, 20))
    assert counts == {"http://fresh": 20}


# --- uneven loads ---


def test_twenty_requests_of_imbalance_all_go_to_the_idle_worker():
    harness = make_harness(2, balance_abs_threshold=1, balance_rel_threshold=1.0)
    busy, idle = harness.workers
    serve(harness, "hello")
    assign(busy, load=100)
    assert {serve(harness, "hello") for _ in range(20)} == {idle.url}


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ((74, 10), "cache_hit"),  # exactly 64 apart
        ((75, 10), "imbalanced"),  # 65 apart, and 7.5 times
        ((195, 130), "cache_hit"),  # 65 apart, but exactly 1.5 times
        ((196, 130), "imbalanced"),
        ((65, 0), "imbalanced"),
        ((64, 0), "cache_hit"),
    ],
)
def test_imbalance_needs_both_conditions_strictly(loads, expected):
    harness = make_harness(2)
    serve(harness, "hello world")
    for worker, load in zip(harness.workers, loads, strict=True):
        assign(worker, load=load)
    assert reason(harness, "hello world") == expected


@pytest.mark.parametrize(("gate", "expected"), [("fleet", "imbalanced"), ("worker", "cache_hit")])
def test_hot_worker_turns_affinity_off_for_all_or_only_for_its_own_prompts(gate, expected):
    harness = make_harness(3, gate=gate, balance_abs_threshold=8)
    home = serve(harness, "hello world")
    hot = next(worker for worker in harness.workers if worker.url != home)
    assign(hot, load=20)

    assert reason(harness, "hello world") == expected


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ((18, 10), "cache_hit"),  # exactly 8 apart
        ((19, 10), "imbalanced"),
        ((30, 20), "cache_hit"),  # 10 apart, but exactly 1.5 times
    ],
)
def test_gate_of_the_worker_compares_its_own_load_with_the_lowest(loads, expected):
    harness = make_harness(2, gate="worker", balance_abs_threshold=8)
    home = serve(harness, "hello world")
    for worker in harness.workers:
        assign(worker, load=loads[0] if worker.url == home else loads[1])

    assert reason(harness, "hello world") == expected
    assert (serve(harness, "hello world") == home) == (expected == "cache_hit")


def test_gate_of_the_worker_is_no_rule_of_an_older_router():
    with pytest.raises(ValidationError, match="leave out gate or compat"):
        CacheAwarePolicy.Config(gate="worker", compat="sglang-0.3.2")


def test_load_range_is_that_of_the_candidates():
    harness = make_harness(3)
    serve(harness, "hello world")
    absent = harness.workers[2]
    for worker in harness.workers[:2]:
        assign(worker, load=80)
    harness.set_health(absent, healthy=False)  # idle, but no candidate
    assert reason(harness, "hello world") == "cache_hit"


def test_tree_learns_while_loads_are_uneven():
    harness = make_harness(2)
    busy, idle = harness.workers
    assign(busy, load=100)
    assert serve(harness, "hello world") == idle.url
    assign(busy, load=0)
    assert reason(harness, "hello world") == "cache_hit"


def test_equally_short_queues_take_turns():
    harness = make_harness(5)
    assign(harness.workers[0], load=1000)
    counts = Counter(serve(harness, "hello") for _ in range(40))
    assert set(counts.values()) == {10}
    assert len(counts) == 4


# --- who comes and goes ---


def test_after_a_worker_left_all_goes_to_the_other():
    harness = make_harness(2)
    prompts = distinct(8, 20)
    for text in prompts:
        serve(harness, text)
    left, stays = harness.workers
    harness.remove_worker(left)
    assert {serve(harness, text) for text in prompts} == {stays.url}


def test_history_survives_a_short_absence():
    harness = make_harness(3)
    prompts = distinct(9, 30)
    homes = {text: serve(harness, text) for text in prompts}
    absent = harness.workers[1]
    harness.set_health(absent, healthy=False)
    lost = next(text for text in prompts if homes[text] == absent.url)
    assert serve(harness, lost) != absent.url
    harness.set_health(absent, healthy=True)
    assert all(serve(harness, text) == homes[text] for text in prompts if text != lost)


def test_lost_prompts_are_spread_like_misses():
    harness = make_harness(5)
    prompts = distinct(10, 200)
    homes = {text: serve(harness, text) for text in prompts}
    absent = harness.workers[0]
    harness.set_health(absent, healthy=False)
    counts = Counter(serve(harness, text) for text in prompts if homes[text] == absent.url)
    assert set(counts.values()) == {10}
    assert len(counts) == 4


def test_without_the_best_owner_one_that_knows_less_is_taken():
    harness = make_harness(3)
    text = "the very same beginning, " * 4
    deepest = serve(harness, text + "and a long continuation")
    owner = next(worker for worker in harness.workers if worker.url == deepest)
    harness.set_health(owner, healthy=False)
    second = serve(harness, text)
    harness.set_health(owner, healthy=True)
    assert serve(harness, text + "and a long continuation") == deepest
    harness.set_health(owner, healthy=False)
    asked = request(text + "and a long continuation")
    assert harness.serve(asked)[0].url == second
    assert asked.reason == "cache_hit"
    assert asked.reason_parts["matched"] == len(text)


def test_worker_that_left_for_good_comes_back_with_nothing():
    harness = make_harness(1)
    (old,) = harness.workers
    serve(harness, "hello world")
    harness.remove_worker(old)
    harness.add_worker(make_worker(old.url))
    assert reason(harness, "hello world") == "cache_miss"


def test_what_a_departed_worker_held_is_dropped_little_by_little():
    harness = make_harness(2)
    for text in distinct(11, 3000, 20):
        serve(harness, text)
    harness.remove_worker(harness.workers[0])
    held = tree_of(harness).chars
    harness.pool.advance(1)
    assert held / 2 < tree_of(harness).chars < held
    harness.pool.advance(10)
    assert tree_of(harness).chars == tree_of(harness).holder(harness.workers[0].url).chars


# --- what became of it ---


@pytest.mark.parametrize("status", [s for s in OutcomeStatus if s is not OutcomeStatus.SUCCESS])
def test_prompt_that_was_not_computed_is_not_remembered(status):
    harness = make_harness(2)
    harness.select(request("hello world")).complete(status)
    assert tree_of(harness).chars == 0


@pytest.mark.parametrize("status", [OutcomeStatus.CANCELLED, OutcomeStatus.TIMEOUT])
def test_prompt_that_was_cut_short_after_its_first_token_is_remembered(status):
    harness = make_harness(2)
    attempt = harness.select(request("hello world"))
    attempt.first_token()
    attempt.complete(status)
    assert reason(harness, "hello world") == "cache_hit"


def test_failure_takes_back_only_what_it_taught():
    harness = make_harness(2)
    home = serve(harness, "first turn")
    harness.select(request("first turn, second turn")).complete(OutcomeStatus.ERROR)
    assert tree_of(harness).chars == len("first turn")
    assert serve(harness, "first turn, second turn") == home


def test_failure_of_a_known_prompt_leaves_it_known():
    harness = make_harness(2)
    serve(harness, "hello world")
    harness.select(request("hello world")).complete(OutcomeStatus.ERROR)
    assert reason(harness, "hello world") == "cache_hit"


def test_requests_follow_one_that_still_runs():
    harness = make_harness(4)
    picks = {harness.select(request("hello world", id=str(n))).worker.url for n in range(10)}
    assert len(picks) == 1


# --- pairs ---


def pair_harness(**options):
    return make_harness((*make_workers(3, WorkerRole.PREFILL), *make_workers(3, WorkerRole.DECODE)), **options)


def test_pair_takes_prefill_by_the_tree_and_decode_by_load():
    harness = pair_harness()
    text = "hello world"
    pairs = [harness.select_pair(request(text, id=str(n))) for n in range(6)]
    assert len({prefill.worker.url for prefill, _ in pairs}) == 1
    assert Counter(decode.worker.load for _, decode in pairs) == {2: 6}


def test_decode_workers_are_never_in_the_tree():
    harness = pair_harness()
    for text in distinct(12, 20):
        harness.serve(request(text))
    assert all("prefill" in url for url in tree_of(harness).holders)


def test_failed_decode_leaves_the_prefill_remembered():
    harness = pair_harness()
    prefill, decode = harness.select_pair(request("hello world"))
    decode.complete(OutcomeStatus.ERROR)
    prefill.complete()
    asked = request("hello world")
    harness.select_pair(asked)
    assert asked.reason == "cache_hit"


def test_single_decode_leg_goes_by_load_and_reads_no_text():
    harness = pair_harness()
    asked = make_request("hello", leg=Leg.DECODE, needs=())
    picks = [harness.select(asked, WorkerRole.DECODE).worker.url for _ in range(3)]
    assert len(set(picks)) == 3
    assert tree_of(harness).chars == 0


def test_single_prefill_leg_goes_by_the_tree():
    harness = pair_harness()
    picks = {harness.select(request("hello", leg=Leg.PREFILL), WorkerRole.PREFILL).worker.url for _ in range(3)}
    assert len(picks) == 1


# --- memory ---


def test_memory_stays_bounded_under_many_distinct_prompts():
    harness = make_harness(4, max_tree_size=50_000)
    policy, workers = harness.policy, harness.workers
    rng = random.Random(13)
    for index in range(100_000):
        policy.select_single(workers, request(f"{rng.random()} {index}", id=str(index), cache_salt=str(index % 1000)))
        if index % 1000 == 0:
            assert tree_of(harness).chars <= 50_000
    assert len(tree_of(harness)._recency) < 5_000
    assert len(tree_of(harness)._roots) <= 1000
    assert len(policy._rules._lessons) <= 65_536


def test_budget_is_one_for_all_workers_and_models():
    harness = make_harness(4, max_tree_size=1000)
    for index, text in enumerate(distinct(14, 200, 90)):
        serve(harness, text, model=str(index % 3))
    held = [chars for _, chars in harness.policy._rules.tree_chars()]
    assert 900 < sum(held) <= 1000


def test_without_an_interval_nothing_is_evicted():
    harness = make_harness(2, max_tree_size=1000, eviction_interval_secs=0)
    for text in distinct(15, 50, 100):
        serve(harness, text)
    harness.pool.advance(3600)
    assert tree_of(harness).chars > 4000


def test_each_interval_makes_room_ahead_of_need():
    harness = make_harness(2, max_tree_size=1600)
    for text in distinct(16, 50, 50):
        serve(harness, text)
    assert tree_of(harness).chars > 1500
    harness.pool.advance(62)
    assert tree_of(harness).chars <= 1500


def test_unstable_candidate_sets_are_not_hoarded():
    harness = make_harness(8)
    rng = random.Random(17)
    for _ in range(500):
        harness.policy.select_single(tuple(rng.sample(harness.workers, 4)), request("hello"))
    assert len(harness.policy._rules._views) <= 64


# --- saying so ---


def test_counters_tell_hits_misses_and_imbalance():
    harness = make_harness(2)
    pool = harness.pool
    serve(harness, "hello world")
    serve(harness, "hello world")
    assign(harness.workers[0], load=100)
    serve(harness, "hello world")
    assert pool.counted("cache_misses_total") == 1
    assert pool.counted("cache_hits_total") == 1
    assert pool.counted("load_balancing_events_total") == 1
    assert pool.observed("cache_match_ratio") == (0.0, 1.0)


def test_gauges_are_set_by_the_timer():
    harness = make_harness(2)
    home = serve(harness, "hello world")
    other = next(worker for worker in harness.workers if worker.url != home)
    assign(other, load=3)
    serve(harness, "hello world")
    assert harness.pool.gauged("cache_tree_chars", worker=home) is None
    harness.pool.advance(1)
    assert harness.pool.gauged("cache_tree_chars", worker=home) == 11
    assert (harness.pool.gauged("max_load"), harness.pool.gauged("min_load")) == (3, 0)
    harness.remove_worker(next(worker for worker in harness.workers if worker.url == home))
    assert harness.pool.gauged("cache_tree_chars", worker=home) == 0


def test_imbalance_is_logged_with_each_load(caplog):
    harness = make_harness(2)
    assign(harness.workers[0], load=100)
    with caplog.at_level(logging.DEBUG):
        serve(harness, "hello")
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("router_policy_cache_aware")]
    assert "max 100, min 0" in line
    assert "'http://regular-0': 100" in line


# --- options ---


def test_defaults():
    config = CacheAwarePolicy.Config()
    assert config.model_dump() == {
        "cache_threshold": 0.3,
        "balance_abs_threshold": 64,
        "balance_rel_threshold": 1.5,
        "eviction_interval_secs": 60,
        "max_tree_size": 67_108_864,
        "gate": "fleet",
        "compat": None,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"cache_threshold": 1.1},
        {"cache_threshold": -0.1},
        {"balance_abs_threshold": -1},
        {"eviction_interval_secs": -1},
        {"max_tree_size": 0},
        {"compat": "sglang-9"},
        {"treshold": 1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValidationError):
        CacheAwarePolicy.Config(**options)


def test_timers_stop_with_the_pool():
    pool = FakePool()
    policy = make_policy()
    policy.on_start(pool)
    assert pool.timers == 2
    off = FakePool()
    make_policy(eviction_interval_secs=0).on_start(off)
    assert off.timers == 1
