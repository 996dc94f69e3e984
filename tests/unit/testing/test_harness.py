import pytest

from router_core.api import Leg, OutcomeStatus, WorkerRole, hookimpl, least_loaded
from router_core.testing.builders import make_request, make_worker, make_workers
from router_core.testing.harness import PolicyFaultError, PolicyHarness


class Diary:
    """Least loaded, and writes down what it hears."""

    def __init__(self):
        self.heard = []

    @hookimpl
    def on_start(self, pool):
        self.heard.append("start")

    @hookimpl
    async def on_stop(self):
        self.heard.append("stop")

    @hookimpl
    def on_worker_added(self, worker):
        self.heard.append(f"added {worker.url}")

    @hookimpl
    def on_worker_removed(self, worker):
        self.heard.append(f"removed {worker.url}")

    @hookimpl
    def select_single(self, workers, request):
        self.heard.append(f"select {request.leg}")
        return least_loaded(workers)

    @hookimpl
    def on_first_token(self, worker):
        self.heard.append(f"first token {worker.load}")

    @hookimpl
    def on_request_complete(self, worker_url, success, worker, outcome):
        self.heard.append(f"complete {success} {outcome.leg} {worker.load}")


class Raises:
    @hookimpl
    def select_single(self, workers, request):
        raise ZeroDivisionError(request.id)


def test_policy_hears_a_request_in_order(policy_harness):
    diary = Diary()
    harness = policy_harness(diary, [make_worker("http://a")])

    harness.serve(make_request("Hello"))
    harness.stop()
    harness.stop()

    assert diary.heard == [
        "start", "added http://a", "select single", "first token 1", "complete True single 0", "stop",
    ]  # fmt: skip


def test_load_is_up_from_selection_to_completion(policy_harness):
    harness = policy_harness(Diary(), 1)
    (worker,) = harness.workers

    attempt = harness.select(make_request(input_tokens=100))
    assert (worker.load, worker.pending_prompt_tokens, worker.decode_tokens) == (1, 100, 0)
    attempt.first_token()
    assert (worker.load, worker.pending_prompt_tokens, worker.decode_tokens) == (1, 0, 100)
    attempt.complete()
    assert (worker.load, worker.pending_prompt_tokens, worker.decode_tokens) == (0, 0, 0)
    assert harness.in_flight == ()


def test_attempt_ends_once_and_its_first_token_comes_before(policy_harness):
    attempt = policy_harness(Diary(), 1).select(make_request())
    attempt.first_token()

    with pytest.raises(RuntimeError, match="at most once"):
        attempt.first_token()
    attempt.complete(OutcomeStatus.TIMEOUT)
    with pytest.raises(RuntimeError, match="already complete"):
        attempt.complete()


def test_outcome_carries_virtual_times_and_given_figures(policy_harness):
    outcomes = []

    class Listens(Diary):
        @hookimpl
        def on_request_complete(self, outcome):
            outcomes.append(outcome)

    harness = policy_harness(Listens(), 1)
    attempt = harness.select(make_request(attempt=2))
    harness.pool.advance(0.5)
    attempt.first_token()
    harness.pool.advance(1.5)
    attempt.complete(OutcomeStatus.ERROR, http_status=500, cached_tokens=7)

    (outcome,) = outcomes
    assert (outcome.status, outcome.http_status, outcome.cached_tokens) == (OutcomeStatus.ERROR, 500, 7)
    assert (outcome.ttft_s, outcome.duration_s, outcome.attempt) == (0.5, 2.0, 2)


def test_pair_is_composed_leg_by_leg(policy_harness):
    diary = Diary()
    harness = policy_harness(diary, [*make_workers(2, WorkerRole.PREFILL), *make_workers(2, WorkerRole.DECODE)])

    prefill, decode = harness.send(make_request())

    assert (prefill.leg, decode.leg) == (Leg.PREFILL, Leg.DECODE)
    assert (prefill.worker.role, decode.worker.role) == (WorkerRole.PREFILL, WorkerRole.DECODE)
    assert diary.heard[-2:] == ["select prefill", "select decode"]


def test_pool_of_one_leg_is_placed_on_that_leg(policy_harness):
    diary = Diary()
    harness = policy_harness(diary, make_workers(2, WorkerRole.PREFILL))

    (attempt,) = harness.send(make_request())

    assert attempt.leg is Leg.PREFILL
    assert diary.heard[-1] == "select prefill"


def test_unhealthy_worker_is_no_candidate_and_hooks_are_not_asked_for_none(policy_harness):
    diary = Diary()
    harness = policy_harness(diary, 1)
    harness.set_health(harness.workers[0], healthy=False)

    assert harness.send(make_request()) == ()
    assert not [line for line in diary.heard if line.startswith("select")]


def test_departed_worker_ends_its_attempts(policy_harness):
    diary = Diary()
    harness = policy_harness(diary, 1)
    attempt = harness.select(make_request())

    harness.remove_worker(attempt.worker)
    attempt.complete(OutcomeStatus.CANCELLED)

    assert diary.heard[-2:] == ["removed http://regular-0", "complete False single 0"]


def test_error_of_the_policy_comes_through_as_it_is(policy_harness):
    with pytest.raises(ZeroDivisionError, match="request-7"):
        policy_harness(Raises()).select(make_request(id="request-7"))


def test_every_fault_is_raised_also_a_repeated_one(policy_harness):
    harness = policy_harness(Raises())

    for error in (ZeroDivisionError, PolicyFaultError, PolicyFaultError):
        with pytest.raises(error):
            harness.select(make_request())


def test_harness_leaves_no_log_handler_behind():
    import logging

    before = list(logging.getLogger("router_core.plugin_host").handlers)
    with PolicyHarness(Diary()) as harness:
        harness.serve(make_request())

    assert logging.getLogger("router_core.plugin_host").handlers == before
