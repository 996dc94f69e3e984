from router_core.api import Leg, OutcomeStatus, WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance, make_request, make_worker, make_workers
from router_policy_lpwl import LpwlPolicy

SMALL = {"max_blocks": 1000}


class TestConformance(PolicyConformance):
    policy_class = LpwlPolicy
    memory_options = SMALL
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"


class TestPairConformance(PolicyConformance):
    policy_class = LpwlPolicy
    memory_options = SMALL
    roles = PAIR_POOL  # no affinity: a decode leg goes by load alone


def started(policy_harness, workers=2):
    return policy_harness(LpwlPolicy(LpwlPolicy.Config()), workers)


def prompt(name, tokens=4096):
    return make_request((f"{name}. " * 4 * tokens)[: 4 * tokens])


def test_prompt_goes_where_its_beginning_is(policy_harness):
    harness = started(policy_harness, 4)
    homes = {name: harness.serve(prompt(name))[0] for name in "abcdefgh"}

    assert all(harness.serve(prompt(name))[0] is homes[name] for name in "hgfedcba")


def test_prefix_is_left_when_its_worker_has_more_to_do_than_it_saves(policy_harness):
    harness = started(policy_harness)
    home = harness.serve(prompt("known"))[0]
    follower = make_request(prompt("known").text + "continued at length. " * 1000)  # 5250 tokens that are new

    held = harness.select(follower)
    assert held.worker is home  # the prefix saves 4096 of them
    assert harness.select(prompt("known")).worker is not home
    held.first_token()
    assert harness.select(prompt("known")).worker is home


def test_decoding_counts_for_nothing(policy_harness):
    harness = started(policy_harness)
    first = harness.select(prompt("a"))
    first.first_token()
    harness.select(prompt("b")).first_token()
    harness.select(prompt("c", 100))  # somebody has a little to do

    assert harness.select(prompt("d")).worker.pending_prompt_tokens == 4096


def test_failed_prompt_is_not_taken_for_cached(policy_harness):
    harness = started(policy_harness)
    failed = harness.select(prompt("a"))
    failed.complete(OutcomeStatus.ERROR)

    assert harness.select(prompt("a")).worker is not failed.worker  # whose turn it is


def test_idle_equals_take_turns(policy_harness):
    harness = started(policy_harness, 3)
    assert "".join(harness.serve(prompt(str(n)))[0].url[-1] for n in range(6)) == "012012"


def test_decode_leg_goes_where_least_is_in_flight():
    full, roomy = make_worker("full", decode_tokens=900), make_worker("roomy", load=3, decode_tokens=100)
    request = make_request("Hello", leg=Leg.DECODE)
    assert LpwlPolicy(LpwlPolicy.Config()).select_single((full, roomy), request) is roomy
    assert request.reason == "decode"


def test_choice_is_explained():
    request = prompt("a", 1000)
    LpwlPolicy(LpwlPolicy.Config()).select_single(make_workers(2), request)
    parts = {"pending": 0, "cached": 0, "prompt": 1000, "cached_share": 0.0}
    assert (request.reason, request.reason_parts) == ("least_work", parts)
