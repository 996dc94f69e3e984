"""A run: the policies' own hooks, ledger and loading, on virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from router_core.api import Leg, PolicyConfig, hookimpl, least_loaded
from router_core.contract.errors import StartupError
from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import WorkerRole
from router_core.engine_model.timing import EngineConstants
from router_core.simulate import Contender, EnginePlan, Failure, FleetPlan, Scenario, compare, simulate
from router_core.simulate.record import FailureReason
from router_core.simulate.synthetic import synthetic

SLOW = EngineConstants(step_s=1.0, prefill_token_s=0.01, step_token_budget=100, cache_tokens=10_000)


class Witness:
    """Takes the least loaded worker and writes down every call."""

    needs = frozenset({"telemetry", "prefix"})

    def __init__(self):
        self.calls = []
        self.pool = None

    @hookimpl
    def on_start(self, pool):
        self.pool = pool

    @hookimpl
    def select_single(self, workers, request):
        worker = least_loaded(workers)
        self.calls.append(("select", self.pool.now(), request.id, worker.url, len(workers), request.leg))
        return worker

    @hookimpl
    def on_first_token(self, worker, request):
        self.calls.append(("first", self.pool.now(), request.id, worker.url))

    @hookimpl
    def on_request_complete(self, worker, request, outcome):
        self.calls.append(("end", self.pool.now(), request.id, worker.url, outcome, worker.load))


def witnessed(scenario, **options):
    witness = Witness()
    record = simulate(scenario, Contender("witness", make=lambda: witness), **options)
    return record, witness


def test_a_request_is_selected_prefilled_and_completed_at_its_virtual_time(make_scenario):
    scenario = make_scenario([(0.0, 100, 3, ()), (10.0, 100, 1, ())], fleet=FleetPlan((EnginePlan(SLOW),)))
    record, witness = witnessed(scenario)
    assert [call[:3] for call in witness.calls] == [
        ("select", 0.0, "request-0"),
        ("first", 2.0, "request-0"),
        ("end", 4.0, "request-0"),
        ("select", 10.0, "request-1"),
        ("first", 12.0, "request-1"),
        ("end", 12.0, "request-1"),
    ]
    assert [request.ttft_s for request in record.requests] == [2.0, 2.0]
    assert record.requests[0].inter_token_s == 1.0


def test_the_outcome_is_what_a_real_engine_reports(make_scenario):
    rows = [(0.0, 250, 2, (1, 2, 3)), (50.0, 250, 2, (1, 2, 4))]
    _, witness = witnessed(make_scenario(rows, fleet=FleetPlan((EnginePlan(SLOW),))))
    first, second = [call[4] for call in witness.calls if call[0] == "end"]
    assert (first.prompt_tokens, first.cached_tokens, first.completion_tokens) == (250, 0, 2)
    assert second.cached_tokens == 200
    assert second.ttft_s == pytest.approx(1.5)
    assert second.duration_s == pytest.approx(2.5)
    assert first.is_success


def test_load_is_released_before_the_policy_hears_of_the_end(make_scenario):
    _, witness = witnessed(make_scenario([(0.0, 100, 2, ())] * 4))
    assert [call[5] for call in witness.calls if call[0] == "end"] == [1, 1, 0, 0]


def test_a_worker_that_dies_fails_its_requests_and_gets_none_until_it_returns(make_scenario):
    fleet = FleetPlan((EnginePlan(SLOW),) * 2, failures=(Failure(0, at_s=1.0, back_after_s=10.0),))
    rows = [(0.0, 100, 5, ()), (0.1, 100, 5, ()), (2.0, 100, 1, ()), (12.0, 100, 1, ())]
    record, witness = witnessed(make_scenario(rows, fleet=fleet))
    assert [request.status for request in record.requests] == [
        OutcomeStatus.ERROR,
        *[OutcomeStatus.SUCCESS] * 3,
    ]
    candidates = {call[2]: call[4] for call in witness.calls if call[0] == "select"}
    assert candidates == {"request-0": 2, "request-1": 2, "request-2": 1, "request-3": 2}


def test_a_failed_request_is_sent_again_as_often_as_told(make_scenario):
    fleet = FleetPlan((EnginePlan(SLOW),) * 2, failures=(Failure(0, at_s=1.0),))
    record, witness = witnessed(make_scenario([(0.0, 100, 5, ())], fleet=fleet, retries=1))
    assert record.requests[0].status is OutcomeStatus.SUCCESS
    assert record.requests[0].ttft_s == 3.0
    assert [call[3] for call in witness.calls if call[0] == "select"] == ["http://worker-0", "http://worker-1"]


def test_without_workers_requests_fail_and_the_run_ends(make_scenario):
    fleet = FleetPlan((EnginePlan(SLOW),), failures=(Failure(0, at_s=0.0),))
    record, _ = witnessed(make_scenario([(0.0, 100, 5, ()), (1.0, 100, 5, ()), (2.0, 100, 5, ())], fleet=fleet))
    assert [request.status for request in record.requests] == [
        OutcomeStatus.ERROR,
        OutcomeStatus.BACKPRESSURE,
        OutcomeStatus.BACKPRESSURE,
    ]
    assert [request.failure for request in record.requests] == [
        FailureReason.WORKER_DIED,
        FailureReason.NO_WORKER,
        FailureReason.NO_WORKER,
    ]


def test_a_request_that_never_fits_is_refused_by_its_engine_and_not_sent_again(make_scenario):
    fleet = FleetPlan((EnginePlan(SLOW),))
    rows = [(0.0, 9_999, 2, ()), (0.0, 5_000_000, 1, ()), (0.0, 9_999, 1, ()), (0.0, 1, 5_000_000, ())]
    record, witness = witnessed(make_scenario(rows, fleet=fleet, retries=3))
    failures = [(request.status, request.failure) for request in record.requests]
    refused = (OutcomeStatus.CLIENT_ERROR, FailureReason.TOO_LONG)
    assert failures == [refused, refused, (OutcomeStatus.SUCCESS, None), refused]
    ends = {call[2]: call[4] for call in witness.calls if call[0] == "end"}
    assert [ends[f"request-{number}"].http_status for number in range(4)] == [400, 400, 200, 400]


@pytest.mark.parametrize(
    ("prefill_tokens", "decode_tokens", "statuses"),
    [(100, 10_000, ["client_error", "cancelled"]), (10_000, 100, ["success", "client_error"])],
)
def test_either_leg_of_a_pair_may_be_refused(make_scenario, prefill_tokens, decode_tokens, statuses):
    sides = ((WorkerRole.PREFILL, prefill_tokens), (WorkerRole.DECODE, decode_tokens))
    engines = tuple(EnginePlan(replace(SLOW, cache_tokens=tokens), role) for role, tokens in sides)
    record, witness = witnessed(make_scenario([(0.0, 200, 3, ())], fleet=FleetPlan(engines)))
    assert record.requests[0].failure is FailureReason.TOO_LONG
    assert [call[4].status for call in witness.calls if call[0] == "end"] == statuses


def test_a_yardstick_gives_a_long_request_to_an_engine_that_takes_it(make_scenario):
    engines = tuple(EnginePlan(replace(SLOW, cache_tokens=tokens)) for tokens in (500, 10_000))
    for yardstick in ("oracle_greedy", "oracle_pooled"):
        record = simulate(make_scenario([(0.0, 2000, 3, ())] * 3, fleet=FleetPlan(engines)), yardstick)
        assert [request.failure for request in record.requests] == [None] * 3


def test_a_run_of_days_after_the_last_arrival_is_sampled_ever_more_rarely(make_scenario):
    rare = EngineConstants(step_s=1.0, prefill_token_s=1.0, cache_tokens=1_000_000)
    record = simulate(make_scenario([(0.0, 500_000, 1, ())], fleet=FleetPlan((EnginePlan(rare),))), "round_robin")
    assert record.ended_s > 500_000
    assert 1000 < len(record.samples) < 20_000


def test_a_pair_prefills_transfers_and_decodes(make_scenario):
    engines = (EnginePlan(SLOW, WorkerRole.PREFILL), EnginePlan(SLOW, WorkerRole.DECODE))
    fleet = FleetPlan(engines, transfer_s=0.5, transfer_token_s=0.0)
    record, witness = witnessed(make_scenario([(0.0, 100, 3, ())], fleet=fleet))
    only = record.requests[0]
    assert (only.worker, only.decode_worker) == (0, 1)
    assert only.first_token_s == 2.0 + 0.5 + 1.0
    assert only.ended_s == only.first_token_s + 2.0
    legs = [(call[0], call[3], call[4].leg) for call in witness.calls if call[0] == "end"]
    assert legs == [("end", "http://worker-0", Leg.PREFILL), ("end", "http://worker-1", Leg.DECODE)]


def test_a_session_waits_for_its_answer_and_thinks_no_longer_than_told():
    trace = synthetic("sessions", requests=6, turns=3, think_s=1000)
    record = simulate(Scenario(trace, FleetPlan.uniform(1), think_cap_s=5.0), "round_robin")
    by_index = {request.index: request for request in record.requests}
    for session in trace.sessions:
        turns = [by_index[trace.requests.index(request)] for request in session]
        for before, after in pairwise(turns):
            assert 0 <= after.arrived_s - before.ended_s <= 5.0 + 1e-9


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    scenario = Scenario(synthetic("shared_prefixes", requests=200), FleetPlan.uniform(3))
    runs = [simulate(scenario, "random", seed=seed) for seed in (1, 1, 2)]
    assert runs[0].requests == runs[1].requests
    assert runs[0].requests != runs[2].requests


def test_routers_side_by_side_know_only_what_they_sent_themselves(make_scenario):
    witnesses = []

    def make():
        witnesses.append(Witness())
        return witnesses[-1]

    scenario = make_scenario([(0.0, 100, 2, ())] * 4, routers=2)
    simulate(scenario, Contender("witness", make=make))
    assert len(witnesses) == 2
    for witness in witnesses:
        assert [call[3] for call in witness.calls if call[0] == "select"] == ["http://worker-0", "http://worker-1"]


def test_telemetry_is_there_for_a_policy_that_needs_it(make_scenario):
    seen = []

    class Reader(Witness):
        @hookimpl
        def select_single(self, workers, request):
            seen.append([worker.engine and worker.engine.running_requests for worker in workers])
            return workers[0]

    rows = [(0.5, 100, 5, ()), (2.6, 100, 1, ())]
    scenario = make_scenario(rows, fleet=FleetPlan((EnginePlan(SLOW),) * 2), telemetry_s=1.0)
    simulate(scenario, Contender("reader", make=Reader))
    assert seen == [[0, 0], [1, 0]]


def test_faults_of_a_policy_are_in_the_figures(make_scenario):
    class Broken:
        class Config(PolicyConfig):
            pass

        @hookimpl
        def select_single(self, workers, request):
            raise RuntimeError("no")

    result = compare(make_scenario([(0.0, 100, 2, ())] * 3), [Contender("broken", make=Broken)], seeds=2)
    assert result["broken"].faults == {"broken: raised": 6}


def test_yardsticks_bound_what_policies_reach():
    scenario = Scenario(synthetic("shared_prefixes", requests=600, rate=30), FleetPlan.uniform(4, cache_tokens=60_000))
    result = compare(scenario, ["round_robin", "oracle_greedy", "oracle_pooled"], seeds=1)
    ttft = {summary.policy: summary.mean("ttft_mean") for summary in result.summaries}
    assert ttft["oracle_pooled"] < ttft["oracle_greedy"] < ttft["round_robin"]


def test_a_policy_nobody_installed_is_an_error_with_its_name(make_scenario):
    with pytest.raises(StartupError, match="rund_robin"):
        simulate(make_scenario([(0.0, 1, 1, ())]), "rund_robin")


@pytest.mark.parametrize(
    ("text", "label", "name", "options"),
    [
        ("cache_aware", "cache_aware", "cache_aware", {}),
        ("cache-aware", "cache-aware", "cache_aware", {}),
        ("a=cache_aware:{cache_threshold: 0.5}", "a", "cache_aware", {"cache_threshold": 0.5}),
        ("my_module:MyPolicy", "my_module:MyPolicy", "my_module:MyPolicy", {}),
        ("x=my_module:MyPolicy:{a: b}", "x", "my_module:MyPolicy", {"a": "b"}),
    ],
)
def test_a_contender_is_written_with_label_and_options(text, label, name, options):
    contender = Contender.parse(text)
    assert (contender.label, contender.name, dict(contender.options)) == (label, name, options)


@pytest.mark.parametrize("text", ["", "a:{", "a:{b", "a:{b: [}", "oracle_pooled:{a: 1}"])
def test_a_contender_that_cannot_be_read_is_an_error(text):
    with pytest.raises(StartupError):
        Contender.parse(text)
