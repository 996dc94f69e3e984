"""A policy for each side of a prefill/decode pool: each hears of its own workers, observers of all."""

import pytest

from router_core.api import Leg, OutcomeStatus, RequestOutcome, hookimpl
from router_core.contract.errors import StartupError
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager


class Side:
    def __init__(self, index):
        self.index = index
        self.heard = []

    @hookimpl
    def on_start(self, pool):
        self.heard.append(("start", pool))

    @hookimpl
    def on_stop(self):
        self.heard.append(("stop",))

    @hookimpl
    def on_worker_added(self, worker):
        self.heard.append(("added", worker.url))

    @hookimpl
    def on_worker_removed(self, worker):
        self.heard.append(("removed", worker.url))

    @hookimpl
    def on_first_token(self, worker):
        self.heard.append(("first token", worker.url))

    @hookimpl
    def on_request_complete(self, worker_url):
        self.heard.append(("complete", worker_url))


class Policy(Side):
    @hookimpl
    def select_single(self, workers, request):
        self.heard.append(("select", request.leg))
        return workers[self.index] if self.index is not None else None


class Failing(Policy):
    needs = frozenset({"prefix"})

    @hookimpl
    def on_start(self):
        raise ValueError("boom")

    @hookimpl
    def on_worker_added(self, worker):
        raise ValueError("boom")


def pair_of(prefill, decode, *observers):
    return PairManager(
        PolicyManager(prefill, name="left"),
        PolicyManager(decode, name="right"),
        observers=[(f"observer{index}", observer) for index, observer in enumerate(observers)],
    )


def test_a_decode_worker_alone_is_the_decode_policys_choice(prefill_workers, decode_workers, request_):
    left, right = Policy(0), Policy(1)
    assert pair_of(left, right).select_decode(prefill_workers[0], decode_workers, request_) is decode_workers[1]
    assert (left.heard, right.heard) == ([], [("select", Leg.DECODE)])


def test_each_leg_goes_by_its_own_policy(prefill_workers, decode_workers, request_):
    left, right = Policy(0), Policy(1)
    pair = pair_of(left, right)
    assert pair.select_pair(prefill_workers, decode_workers, request_) == (prefill_workers[0], decode_workers[1])
    assert (left.heard, right.heard) == ([("select", Leg.PREFILL)], [("select", Leg.DECODE)])
    assert request_.leg is Leg.SINGLE
    assert (pair.name, pair.decision_times.count, pair.is_quarantined) == ("left+right", 2, False)


def test_each_side_hears_of_its_own_workers_and_observers_of_all(prefill_workers, decode_workers, request_):
    left, right, observer = Policy(0), Policy(0), Side(None)
    pair = pair_of(left, right, observer)
    outcome = RequestOutcome(OutcomeStatus.SUCCESS)
    for worker in (prefill_workers[0], decode_workers[0]):
        pair.worker_added(worker)
        pair.first_token(worker, request_)
        pair.request_complete(worker, request_, outcome)
        pair.worker_removed(worker)
    events = ("added", "first token", "complete", "removed")
    assert left.heard == [(event, "http://p0") for event in events]
    assert right.heard == [(event, "http://d0") for event in events]
    assert observer.heard == left.heard + right.heard
    assert pair.wants_first_token


async def test_observers_of_two_policies_start_and_stop_once():
    left, right, observer = Policy(0), Policy(0), Side(None)
    pair = pair_of(left, right, observer)
    await pair.start(lambda name: name)
    await pair.stop()
    assert [one.heard for one in (left, right, observer)] == [
        [("start", "left"), ("stop",)],
        [("start", "right"), ("stop",)],
        [("start", "observer0"), ("stop",)],
    ]


async def test_first_side_is_stopped_again_when_the_second_cannot_start():
    left = Policy(0)
    with pytest.raises(StartupError, match="policy 'right'"):
        await pair_of(left, Failing(0)).start(lambda name: name)
    assert left.heard == [("start", "left"), ("stop",)]


def test_faults_and_needs_of_both_sides_and_observers_add_up(prefill_workers, decode_workers):
    class RaisingObserver:
        needs = frozenset({"telemetry"})

        @hookimpl
        def on_worker_added(self):
            raise ValueError("boom")

    pair = pair_of(Failing(0), Failing(0), RaisingObserver())
    pair.worker_added(prefill_workers[0])
    pair.worker_added(decode_workers[0])
    assert pair.faults == {("left", "raised"): 1, ("right", "raised"): 1, ("observer0", "raised"): 2}
    assert pair.needs == {"prefix", "telemetry"}
