"""Prefill/decode pairs in a run: every built-in policy, one policy for both sides or one for each."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from router_core.api import Leg, hookimpl
from router_core.contract.errors import StartupError
from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import WorkerRole
from router_core.engine_model.presets import H100_8B
from router_core.plugin_host.discovery import installed_policies
from router_core.simulate import (
    Contender,
    EnginePlan,
    Failure,
    FleetPlan,
    Plugin,
    Scenario,
    compare,
    simulate,
    synthetic,
)

POLICIES = sorted({plugin.target: plugin.name for plugin in installed_policies().plugins}.values())
SMALL = replace(H100_8B, cache_tokens=60_000)


class Accountant:
    """Watches whether every leg of every attempt ends once, and what load is left."""

    def __init__(self):
        self.ends = Counter()
        self.workers = set()

    @hookimpl
    def on_worker_added(self, worker):
        self.workers.add(worker)

    @hookimpl
    def on_request_complete(self, worker, request, outcome):
        assert outcome.leg is (Leg.PREFILL if worker.role is WorkerRole.PREFILL else Leg.DECODE)
        self.ends[request.id, outcome.attempt, outcome.leg] += 1


def pairs(prefill=2, decode=2, failures=()):
    engines = (EnginePlan(SMALL, WorkerRole.PREFILL),) * prefill + (EnginePlan(SMALL, WorkerRole.DECODE),) * decode
    return FleetPlan(engines, failures=failures)


@pytest.mark.parametrize("policy", [*POLICIES, "oracle_greedy", "oracle_pooled"])
def test_every_leg_ends_once_and_leaves_no_load_though_workers_die(policy):
    accountant = Accountant()
    dying = (Failure(0, at_s=3.0, back_after_s=4.0), Failure(3, at_s=6.0, back_after_s=2.0), Failure(1, at_s=12.0))
    trace = synthetic("shared_prefixes", requests=150, prefixes=8, rate=8)
    contender = Contender(policy, observers=(Plugin("accountant", make=lambda: accountant),))
    record = simulate(Scenario(trace, pairs(failures=dying), retries=2), contender)
    assert not record.faults
    served = [one for one in record.requests if one.status is OutcomeStatus.SUCCESS]
    assert len(served) == 150
    assert {one.worker for one in served} <= {0, 1}
    assert {one.decode_worker for one in served} <= {2, 3}
    assert all(one.arrived_s < one.first_token_s <= one.ended_s for one in served)
    assert set(accountant.ends.values()) == {1}
    attempts = {leg: {key[:2] for key in accountant.ends if key[2] is leg} for leg in (Leg.PREFILL, Leg.DECODE)}
    assert attempts[Leg.PREFILL] == attempts[Leg.DECODE]
    assert len(attempts[Leg.PREFILL]) > 150
    left = {(one.load, one.pending_prompt_tokens, one.decode_tokens) for one in accountant.workers}
    assert left == {(0, 0, 0)}


def test_policies_that_know_caches_find_them_on_prefill_engines():
    trace = synthetic("shared_prefixes", requests=500, rate=8, prefixes=30)
    result = compare(Scenario(trace, pairs()), ["predicted_latency", "lmetric", "cache_aware", "round_robin"], seeds=1)
    hits = {summary.policy: summary.mean("hit_rate") for summary in result.summaries}
    assert min(hits[name] for name in ("predicted_latency", "lmetric", "cache_aware")) > 1.1 * hits["round_robin"]


def test_a_policy_for_each_side_is_asked_for_its_own_leg_alone():
    scenario = Scenario(synthetic("bursts", requests=40), pairs())
    both = compare(scenario, ["round_robin", "random", "mixed=round_robin + random"], seeds=1)
    sides = {
        run.policy: ([one.worker for one in run.requests], [one.decode_worker for one in run.requests])
        for (run,) in both.records
    }
    assert sides["mixed"][0] == sides["round_robin"][0]
    assert sides["mixed"][1] != sides["round_robin"][1]


def test_each_side_has_options_of_its_own():
    contender = Contender.parse("cache_aware:{cache_threshold: 0.4} + power-of-two:{load: tokens}")
    assert (contender.name, contender.options) == ("cache_aware", {"cache_threshold": 0.4})
    assert contender.decode == Plugin("power_of_two", {"load": "tokens"})
    assert contender.label == "cache_aware:{cache_threshold: 0.4} + power-of-two:{load: tokens}"


@pytest.mark.parametrize("text", ["random + ", "random + random + random", "oracle_greedy + random"])
def test_sides_that_cannot_be_read_are_an_error_in_a_sentence(text):
    with pytest.raises(StartupError, match="--policy"):
        Contender.parse(text)


def test_a_policy_for_each_side_wants_pairs():
    with pytest.raises(StartupError, match=r"random \+ random.*prefill and decode engines"):
        simulate(Scenario(synthetic("bursts", requests=4), FleetPlan.uniform(2)), "random + random")


def test_balance_is_judged_within_each_side():
    scenario = Scenario(synthetic("bursts", requests=100), pairs(prefill=1, decode=1))
    assert compare(scenario, ["random"], seeds=1)["random"].mean("imbalance") == 1


def test_the_pooled_yardstick_ends_when_no_engine_is_left():
    fleet = FleetPlan.uniform(2, failures=(Failure(0, at_s=0.5), Failure(1, at_s=0.5)))
    record = simulate(Scenario(synthetic("bursts", requests=60), fleet, rate=1000.0), "oracle_pooled")
    assert {one.status for one in record.requests} == {OutcomeStatus.ERROR}
    assert len(record.requests) == 60
