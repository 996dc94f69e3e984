"""What the router puts around and beside a policy, and the headers a policy reads, are there in a run too."""

from __future__ import annotations

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.contract.errors import StartupError
from router_core.simulate import Contender, FleetPlan, Plugin, Scenario, Trace, TraceRequest, simulate, synthetic


class Last:
    """A wrapper that takes the last worker, whatever the policy says."""

    class Config(PolicyConfig):
        share: float = 1.0

    def __init__(self, config: Config) -> None:
        self.share = config.share
        self.policies = []

    @hookimpl
    def on_start(self, pool):
        self.pool = pool

    @hookimpl(wrapper=True)
    def select_single(self, workers):
        chosen = yield
        self.policies.append(chosen.url)
        return workers[-1] if self.pool.random.random() < self.share else chosen


class Watcher:
    """An observer that notes what it is told; one that needs a header."""

    needs = frozenset({"header:x-tenant"})

    def __init__(self):
        self.seen = []

    @hookimpl
    def on_request_complete(self, worker, request, outcome):
        self.seen.append((worker.url, dict(request.headers), outcome.status.value))


def keyed(*rows):
    requests = (
        TraceRequest(float(at), 100, 2, session=session, user=user, headers=headers)
        for at, (session, user, headers) in enumerate(rows)
    )
    return Scenario(Trace("keyed", 100, tuple(requests)), FleetPlan.uniform(4))


def test_a_wrapper_changes_what_the_policy_chose():
    wrapper = Last(Last.Config())
    contender = Contender("round_robin", wrappers=(Plugin("last", make=lambda: wrapper),))
    record = simulate(Scenario(synthetic("bursts", requests=40), FleetPlan.uniform(4)), contender)
    assert {one.worker for one in record.requests} == {3}
    assert len(set(wrapper.policies)) == 4


def test_an_observer_hears_of_every_request_and_gets_the_headers_it_needs():
    watcher = Watcher()
    contender = Contender("round_robin", observers=(Plugin("watcher", make=lambda: watcher),))
    simulate(keyed((None, None, (("x-tenant", "a"),)), (None, None, ())), contender)
    assert [(headers, status) for _, headers, status in watcher.seen] == [
        ({"x-tenant": "a"}, "success"),
        ({}, "success"),
    ]


def test_an_observer_that_fails_is_counted_and_changes_nothing():
    class Broken:
        @hookimpl
        def on_request_complete(self):
            raise RuntimeError("no")

    scenario = Scenario(synthetic("bursts", requests=40), FleetPlan.uniform(4))
    plain, watched = (
        simulate(scenario, Contender("random", observers=observers))
        for observers in ((), (Plugin("broken", make=Broken),))
    )
    assert plain.requests == watched.requests
    assert watched.faults == {"broken: raised": 40}


@pytest.mark.parametrize("policy", ["manual", "consistent_hash"])
def test_a_session_keeps_its_worker_by_the_header_its_clients_send(policy):
    sessions = [f"s{number % 3}" for number in range(30)]
    record = simulate(keyed(*((session, None, ()) for session in sessions)), policy)
    homes = {(session, one.worker) for session, one in zip(sessions, record.requests, strict=True)}
    assert len(homes) == 3


def test_any_header_may_carry_the_user_and_the_trace_has_the_last_word():
    policy = Contender("manual", {"keys": ["header:x-tenant"]})
    scenario = keyed(*[(None, "same", ())] * 8, *[(None, "same", (("x-tenant", f"{n}"),)) for n in range(8)])
    by_habit = Scenario(scenario.trace, scenario.fleet, headers={"x-tenant": "user"})
    workers = [one.worker for one in simulate(by_habit, policy).requests]
    assert len(set(workers[:8])) == 1
    assert len(set(workers[8:])) > 1


def test_wrappers_are_written_before_the_policy_the_outermost_first():
    contender = Contender.parse("guarded=my:Guard:{margin: 3} > shade > cache_aware + random")
    assert (contender.label, contender.name) == ("guarded", "cache_aware")
    assert contender.wrappers == (Plugin("my:Guard", {"margin": 3}), Plugin("shade"))
    assert contender.decode == Plugin("random")


def test_what_stands_in_options_is_no_sign():
    contender = Contender.parse("my:Policy:{rule: 'a > b} + c', list: [x+y]}")
    assert contender.options == {"rule": "a > b} + c", "list": ["x+y"]}


def test_a_wrapper_nobody_installed_is_an_error_with_its_name():
    scenario = Scenario(synthetic("bursts", requests=4), FleetPlan.uniform(2))
    with pytest.raises(StartupError, match="wrapper 'nobody' is not installed"):
        simulate(scenario, "nobody > random")
