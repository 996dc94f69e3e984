import random
from collections import Counter

import pytest

from router_core.api import Leg, WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance, make_request, make_worker, make_workers
from router_policy_dynamo_cost import DynamoCostPolicy
from router_policy_dynamo_cost.choice import cheapest, softmax

SMALL = {"max_blocks": 1000}


class TestConformance(PolicyConformance):
    policy_class = DynamoCostPolicy
    options = {"preset": "agentic"}
    memory_options = SMALL
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"


class TestPairConformance(PolicyConformance):
    policy_class = DynamoCostPolicy
    memory_options = SMALL
    roles = PAIR_POOL  # no affinity: a decode leg goes by load alone


def policy(**options):
    return DynamoCostPolicy(DynamoCostPolicy.Config(**options))


def prompt(name, tokens=4096):
    return make_request((f"{name}. " * 4 * tokens)[: 4 * tokens])


def costs_of(policy, workers, request):
    return policy._costs(workers, request.input_tokens, policy.backlog.match(workers, request))


def costs(harness, request):
    return dict(
        zip((each.url[-1] for each in harness.workers), costs_of(harness.policy, harness.workers, request), strict=True)
    )


def test_cost_counts_pending_prefill_the_prompt_and_context_in_blocks(policy_harness):
    harness = policy_harness(policy(), 2)
    held = harness.select(prompt("a", 1024))
    url = held.worker.url[-1]

    assert costs(harness, prompt("b", 512))[url] == (1024 + 512 + 1024) / 16
    held.first_token()
    assert costs(harness, prompt("b", 512))[url] == (512 + 1024) / 16
    held.complete()
    assert costs(harness, prompt("b", 512)) == {"0": 32, "1": 32}
    assert costs(harness, prompt("a", 1024))[url] == 0


def test_presets_set_the_weights_and_options_outrank_them(policy_harness):
    def cost_of(**options):
        harness = policy_harness(policy(**options), 1)
        harness.serve(prompt("a", 1024))
        harness.select(prompt("b", 512))
        return costs(harness, prompt("a", 1024))["0"]

    assert cost_of() == (512 + 512) / 16
    assert cost_of(preset="load") == (512 + 1024 + 512) / 16
    assert cost_of(preset="agentic") == (4 * (512 + 1024 - 2 * 1024) + 512) / 16 + 64
    assert cost_of(preset="agentic", active_request_weight=0, overlap_credit=1) == (4 * 512 + 512) / 16


def test_credit_decays_on_a_worker_with_more_to_do_than_the_idlest(policy_harness):
    harness = policy_harness(policy(overlap_credit_decay=1), 2)
    home = harness.serve(prompt("a", 1024))[0].url[-1]
    while harness.select(prompt("b", 1024)).worker.url[-1] != home:
        pass
    pending = harness.policy.backlog.pending_tokens
    excess = pending(f"http://regular-{home}") - min(pending(each.url) for each in harness.workers)

    spared = costs(harness, prompt("fresh", 1024))[home] - costs(harness, prompt("a", 1024))[home]
    assert spared == pytest.approx(1024 / 16 / (1 + excess / 1024))


def test_temperature_spreads_and_repeats_under_one_seed(policy_harness):
    def picks(temperature):
        harness = policy_harness(policy(temperature=temperature), 4)
        return [harness.serve(prompt("a", 512))[0].url for _ in range(400)]

    assert len(set(picks(0))) == 1
    assert picks(1.0) == picks(1.0)
    counts = Counter(picks(5.0))
    assert len(counts) == 4
    assert min(counts.values()) > 60


def test_decode_leg_counts_context_and_requests():
    full, busy = make_worker("full", load=1, decode_tokens=3200), make_worker("busy", load=8, decode_tokens=1600)
    request = make_request("Hello", leg=Leg.DECODE)

    assert policy().select_single((full, busy), request) is busy
    assert policy(active_request_weight=64).select_single((full, busy), request) is full
    assert request.reason == "decode_cost"


def test_choice_is_explained():
    request = prompt("a", 512)
    policy().select_single(make_workers(2), request)
    assert (request.reason, request.reason_parts) == ("least_cost", {"cost": 32, "least": 32, "cached_share": 0.0})


# --- picking ---


def test_equal_costs_are_chosen_evenly():
    draw = random.Random(1).random
    counts = Counter(cheapest((2, 1, 1, 3, 1), draw) for _ in range(6000))
    assert counts.keys() == {1, 2, 4}
    assert all(count == pytest.approx(2000, abs=150) for count in counts.values())


def test_softmax_weighs_by_cost_whatever_its_scale():
    draw = random.Random(1).random
    for scale in (1, 1000):
        counts = Counter(softmax((0, scale), 1.0, draw) for _ in range(6000))
        assert counts[0] / 6000 == pytest.approx(0.731, abs=0.02)  # 1 / (1 + 1/e)


def test_softmax_over_equal_costs_is_even():
    draw = random.Random(1).random
    counts = Counter(softmax((5, 5, 5), 0.1, draw) for _ in range(6000))
    assert all(count == pytest.approx(2000, abs=150) for count in counts.values())
