import random
from collections import Counter

import pytest
from pydantic import ValidationError

from router_core.api import EngineTelemetry, Leg, WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance, make_request, make_worker, make_workers
from router_policy_weighted import WeightedPolicy
from router_policy_weighted.picking import highest, weighted_random
from router_policy_weighted.scales import least_is_best, prefix_score, share_left

ALL = "queue=1,running=1,active=1,kv=1,load_aware=1,token_load=1,prefix=1,no_hit_lru=1,lora=1,session=1"
SMALL = {"max_blocks": 1000, "max_sessions": 500}


class TestConformance(PolicyConformance):
    policy_class = WeightedPolicy
    memory_options = SMALL
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"


class TestPairConformanceOfAllScorers(PolicyConformance):
    policy_class = WeightedPolicy
    options = {"scorers": ALL}
    memory_options = SMALL
    roles = PAIR_POOL


class TestConformanceBySession(PolicyConformance):
    policy_class = WeightedPolicy
    options = {"scorers": {"session": 2, "active": 1}}
    memory_options = SMALL
    affinity = "session"


def policy(scorers, **options):
    return WeightedPolicy(WeightedPolicy.Config(scorers=scorers, **options))


def told(url="told", **figures):
    return make_worker(url, engine=EngineTelemetry(0.0, **figures))


def scores(made, *workers, request=None):
    """What each worker is given by the only scorer."""
    case = made._scorers.case(workers, request or make_request("Hello"))
    return made._scorers.sums(case)[0]


# --- options ---


def test_weights_may_be_given_as_text():
    assert WeightedPolicy.Config(scorers="prefix=3, queue=0.5").scorers == {"prefix": 3, "queue": 0.5}


@pytest.mark.parametrize(
    ("scorers", "sentence"),
    [
        ("", "no scorer has a weight"),
        ({"queue": 0}, "no scorer has a weight"),
        ("queue", "valid number"),
        ("queue=two", "valid number"),
        ("prefix=3,prefix=2", "prefix stands twice; give each scorer one weight"),
        ({"queue": -1}, "greater than or equal to 0"),
        ({"queues": 1}, "queue"),
    ],
)
def test_weights_that_cannot_be_are_refused(scorers, sentence):
    with pytest.raises(ValidationError, match=sentence):
        WeightedPolicy.Config(scorers=scorers)


def test_only_what_the_scorers_read_is_declared():
    assert policy("prefix=3,kv=2,queue=2").needs == {"prefix", "telemetry"}
    assert policy("active=1,session=1,lora=1,token_load=1").needs == frozenset()
    assert policy("no_hit_lru=1").needs == {"prefix"}
    assert policy("active=1,queue=0").needs == frozenset()


# --- scorers ---


def test_queue_and_running_are_relative_to_the_least_and_the_greatest():
    workers = told(waiting_requests=0, running_requests=8), told(waiting_requests=4, running_requests=2)
    middle = told(waiting_requests=1, running_requests=5)
    assert scores(policy("queue=2"), *workers, middle) == [2, 0, 1.5]
    assert scores(policy("running=1"), *workers, middle) == [0, 1, 0.5]


def test_kv_is_the_share_that_is_free():
    assert scores(policy("kv=1"), told(cache_usage=0.25), told(cache_usage=1.0)) == [0.75, 0]


def test_load_aware_gives_half_for_an_empty_queue():
    workers = told(waiting_requests=0), told(waiting_requests=32), told(waiting_requests=500)
    assert scores(policy("load_aware=1"), *workers) == [0.5, 0.375, 0]


def test_token_load_counts_all_tokens_in_flight():
    workers = make_worker(pending_prompt_tokens=25, decode_tokens=50), make_worker(decode_tokens=500)
    assert scores(policy("token_load=1", token_threshold=100), *workers) == [0.25, 0]


@pytest.mark.parametrize("scorer", ["queue", "running", "kv", "load_aware"])
def test_engine_that_tells_nothing_is_in_the_middle(scorer):
    idle = told(waiting_requests=0, running_requests=0, cache_usage=0.0)
    busy = told(waiting_requests=128, running_requests=9, cache_usage=1.0)
    best, worst, *unknown = scores(policy({scorer: 1}), idle, busy, make_worker(), told())
    assert unknown == [(best + worst) / 2] * 2


@pytest.mark.parametrize("scorer", ["queue", "running"])
def test_when_no_engine_tells_anything_requests_in_flight_count(scorer):
    assert scores(policy({scorer: 1}), make_worker(load=3), make_worker(load=1)) == [0, 1]


def test_requests_sent_since_the_reading_count_until_they_wait_no_more(policy_harness):
    harness = policy_harness(policy("queue=1"), 2)
    for worker in harness.workers:
        harness.set_engine(worker, EngineTelemetry(0.0, waiting_requests=0))
    held = [harness.select(make_request()) for _ in range(100)]
    assert [worker.load for worker in harness.workers] == [50, 50]

    busy, idle = harness.workers
    for attempt in held[:80]:
        if attempt.worker is idle:
            attempt.first_token()
    assert scores(harness.policy, busy, idle) == [0, 1]
    harness.pool.advance(1)
    for worker, waiting in ((busy, 1), (idle, 2)):
        harness.set_engine(worker, EngineTelemetry(harness.pool.now(), waiting_requests=waiting))
    assert scores(harness.policy, busy, idle) == [1, 0]


def test_prefix_looks_at_the_share_and_at_the_length():
    assert prefix_score(500, 1000, 0) == 0.5
    assert prefix_score(4096, 8192, 1) == 0.25
    assert prefix_score(100_000, 100_000, 1) == 1
    assert prefix_score(4096, 8192, 0.5) == 0.375
    assert prefix_score(0, 0, 0.5) == 0


def test_prefix_follows_a_prompt_and_not_one_that_failed(policy_harness):
    harness = policy_harness(policy("prefix=1"), 4)
    text = "A long and winding prompt. " * 200
    home = harness.serve(make_request(text))[0]
    assert {harness.serve(make_request(text))[0] for _ in range(20)} == {home}


def test_cold_prompts_go_round_by_no_hit_lru(policy_harness):
    harness = policy_harness(policy("no_hit_lru=1"), 4)
    picks = [harness.serve(make_request(f"{n} is new. " * 100))[0].url for n in range(12)]
    assert len(set(picks[:4])) == 4
    assert picks[:4] == picks[4:8] == picks[8:]


def test_adapter_is_followed_to_where_it_is_loaded(policy_harness):
    harness = policy_harness(policy("lora=1", lora_slots=1), 2)
    attempt = harness.select(make_request(lora="x"))
    loading, other = attempt.worker, next(each for each in harness.workers if each is not attempt.worker)

    assert scores(harness.policy, loading, other, request=make_request(lora="x")) == [0.6, 0.8]
    attempt.first_token()
    assert scores(harness.policy, loading, other, request=make_request(lora="x")) == [1, 0.8]
    assert scores(harness.policy, loading, other, request=make_request(lora="y")) == [0, 0.8]
    assert scores(harness.policy, loading, other, request=make_request()) == [0.5, 0.5]


def test_model_is_an_adapter_only_if_the_options_say_so(policy_harness):
    harness = policy_harness(policy("lora=1", lora_models=["sql-lora"]), 3)
    homes = {
        model: {harness.serve(make_request(model=model))[0] for _ in range(30)} for model in ("sql-lora", "base-model")
    }
    assert (len(homes["sql-lora"]), len(homes["base-model"])) == (1, 3)


def test_session_comes_home_unless_others_outweigh_it(policy_harness):
    harness = policy_harness(policy("session=1,active=2"), 3)
    home = harness.serve(make_request(session="s"))[0]
    assert {harness.serve(make_request(session="s"))[0] for _ in range(9)} == {home}

    harness.select(make_request(session="s"))

    assert harness.serve(make_request(session="s"))[0] is not home


def test_decode_leg_has_no_use_for_a_cached_prompt():
    request = make_request("Hello " * 1000, leg=Leg.DECODE, needs=())
    assert policy("prefix=1,active=1").select_single(make_workers(2), request)


# --- picking ---


def test_equal_sums_are_chosen_evenly():
    draw = random.Random(1).random
    counts = Counter(highest((0.3, 0.1 + 0.2, 0.1), draw) for _ in range(4000))
    assert counts.keys() == {0, 1}
    assert counts[0] == pytest.approx(2000, abs=150)


def test_weighted_random_draws_by_score():
    draw = random.Random(1).random
    counts = Counter(weighted_random((1, 3, 0), draw) for _ in range(4000))
    assert counts[1] == pytest.approx(3000, abs=150)
    assert 2 not in counts
    assert set(Counter(weighted_random((0, 0), draw) for _ in range(100))) == {0, 1}


def test_picker_is_an_option(policy_harness):
    harness = policy_harness(policy("active=1", picker="weighted_random"), 3)
    request = make_request()
    harness.serve(request)
    assert (request.reason, request.reason_parts) == ("drawn_by_score", {"active": 0.5})


# --- scales ---


def test_figures_that_are_all_alike_or_unknown_are_neutral():
    assert least_is_best([3, 3, None]) == [0.5, 0.5, 0.5]
    assert least_is_best([None, None]) == [0.5, 0.5]
    assert share_left([None, -1, 7], 5) == [0.5, 1, 0]
