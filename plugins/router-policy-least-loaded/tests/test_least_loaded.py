import pytest

from router_core.api import EngineTelemetry, Leg
from router_core.testing.conformance import PolicyConformance, make_request, make_worker, make_workers
from router_policy_least_loaded import LeastLoadedPolicy

METRICS = ("requests", "pending_prompt_tokens", "tokens")


class TestConformance(PolicyConformance):
    policy_class = LeastLoadedPolicy


class TestConformanceByTokens(PolicyConformance):
    policy_class = LeastLoadedPolicy
    options = {"metric": "tokens"}


def pick(metric, *workers, leg=Leg.SINGLE):
    policy = LeastLoadedPolicy(LeastLoadedPolicy.Config(metric=metric))
    return policy.select_single(workers, make_request(leg=leg)).url


def test_each_metric_looks_at_its_own_figure():
    fewest = make_worker("fewest", load=1, pending_prompt_tokens=9_000, decode_tokens=9_000)
    quickest = make_worker("quickest", load=2, pending_prompt_tokens=100, decode_tokens=50_000)
    emptiest = make_worker("emptiest", load=3, pending_prompt_tokens=200, decode_tokens=300)

    assert [pick(metric, fewest, quickest, emptiest) for metric in METRICS] == ["fewest", "quickest", "emptiest"]


def test_decode_leg_has_no_prefill_to_compare():
    full = make_worker("full", load=1, decode_tokens=50_000)
    roomy = make_worker("roomy", load=4, decode_tokens=2_000)

    assert pick("pending_prompt_tokens", full, roomy, leg=Leg.DECODE) == "roomy"


@pytest.mark.parametrize("metric", METRICS[1:])
def test_equal_tokens_are_told_apart_by_requests(metric):
    assert pick(metric, make_worker("a", load=2), make_worker("b", load=1)) == "b"


@pytest.mark.parametrize("metric", METRICS)
def test_idle_workers_take_turns(policy_harness, metric):
    harness = policy_harness(LeastLoadedPolicy(LeastLoadedPolicy.Config(metric=metric)), make_workers(3))
    picks = [harness.serve(make_request(input_tokens=10))[0].url[-1] for _ in range(6)]

    assert "".join(picks) == "012012"


@pytest.mark.parametrize("metric", METRICS)
def test_a_burst_is_dealt_out_evenly(policy_harness, metric):
    harness = policy_harness(LeastLoadedPolicy(LeastLoadedPolicy.Config(metric=metric)), make_workers(4))
    for _ in range(100):
        harness.send(make_request(input_tokens=10))

    assert [worker.load for worker in harness.workers] == [25, 25, 25, 25]


def test_choice_is_explained():
    request = make_request()
    LeastLoadedPolicy(LeastLoadedPolicy.Config()).select_single((make_worker("a", load=1),), request)

    assert (request.reason, request.reason_parts) == ("least_loaded", {"load": 1, "pending_prompt_tokens": 0})


def test_telemetry_is_not_looked_at():
    told = make_worker("told", load=1, engine=EngineTelemetry(0.0, running_requests=50))
    assert pick("requests", told, make_worker("silent", load=2)) == "told"
