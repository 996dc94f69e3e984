"""In-house, third-party and deliberately bad policies in a running router: every request is answered all the same."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from router_core.api import PolicyConfig, Worker, hookimpl, least_loaded
from router_core.testing.simulated_engine import Fault

from .support import CompletionWatch, in_house, running_router

BAD_PLUGINS = Path(__file__).parents[1] / "plugins"

STICKY_USER = '''
from router_core.api import PolicyConfig, hookimpl, least_loaded, rendezvous

class StickyUser:
    """Keep a user's requests on one worker while it is not busier than the idlest by `margin`."""

    class Config(PolicyConfig):
        margin: int = 8

    def __init__(self, config: Config) -> None:
        self.margin = config.margin

    @hookimpl
    def select_single(self, workers, request):
        best = least_loaded(workers)
        if request.user is None:
            return best
        home = rendezvous(workers, request.user)
        return home if home.load - best.load <= self.margin else best
'''


class LeastLoaded:
    @hookimpl
    def select_single(self, workers):
        return least_loaded(workers)


class Fickle:
    """Does as its option says, in turn, over and over."""

    class Config(PolicyConfig):
        turns: tuple[str, ...]

    def __init__(self, config: Config) -> None:
        self.turns = config.turns
        self.count = 0

    @hookimpl
    def select_single(self, workers, request):
        turn = self.turns[self.count % len(self.turns)]
        self.count += 1
        match turn:
            case "raise":
                raise ValueError("boom")
            case "stranger":
                return Worker("http://stranger:1")
            case "url":
                return workers[0].url
            case "none":
                return None
        request.explain("good")
        return workers[0]


class DeafToTheEnd:
    """Chooses well and fails in every other hook."""

    @hookimpl
    def select_single(self, workers):
        return workers[0]

    @hookimpl
    def on_first_token(self):
        raise ValueError("boom")

    @hookimpl
    def on_request_complete(self):
        raise ValueError("boom")


class BadObserver:
    @hookimpl
    def on_request_complete(self):
        raise ValueError("boom")


@pytest.fixture
def import_path(monkeypatch):
    """Forget what an `app_dir` brings to the import path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("bad_", "house_")):
            del sys.modules[name]


def fickle(*turns, **selection):
    return {"name": in_house(Fickle), "options": {"turns": turns}, **selection}


async def faults_of(router):
    """Return faults by (plugin, kind), as metrics and health agree on them."""
    samples = (await router.metrics()).get("router_core_policy_faults_total", [])
    scraped = {(s.labels["plugin"], s.labels["kind"]): s.value for s in samples if s.value}
    told = (await router.policy_facts())["faults"]
    assert scraped == {(fault["plugin"], fault["kind"]): fault["count"] for fault in told}
    return scraped


async def test_in_house_policy_comes_from_app_dir_with_options(simulated_engines, tmp_path, import_path):
    (tmp_path / "house_sticky.py").write_text(STICKY_USER)
    policy = {"name": "house_sticky:StickyUser", "options": {"margin": 100}}
    async with simulated_engines(3) as engines, running_router(engines, policy=policy, app_dir=tmp_path) as router:
        homes = {user: await router.ask(body={"messages": [{}], "user": user}) for user in map(str, range(9))}
        assert len(set(homes.values())) > 1
        for user, home in homes.items():
            assert await router.ask(body={"messages": [{}], "user": user}) == home
        await router.settled(18)
        assert (await router.policy_facts())["name"] == "house_sticky:StickyUser"


async def test_hundred_concurrent_requests_spread_evenly_by_least_loaded(simulated_engines):
    async with (
        simulated_engines(4, fault=Fault.HANG) as engines,
        running_router(engines, policy=in_house(LeastLoaded)) as router,
    ):
        asking = [asyncio.ensure_future(router.post().__aenter__()) for _ in range(100)]
        for engine in engines:
            await engine.wait_running(25)
        assert [engine.accepted for engine in engines] == [25] * 4
        assert [load for load, _, _ in router.load()] == [25] * 4
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        outcomes = await router.settled(100)
        assert {outcome.status for outcome in outcomes} == {"cancelled"}
        for engine in engines:
            await engine.wait_for_abort(25)


@pytest.mark.parametrize(("turn", "kind"), [("raise", "raised"), ("stranger", "stranger"), ("url", "wrong_type")])
async def test_a_fault_is_answered_by_the_least_loaded_and_counted(simulated_engines, turn, kind):
    policy = fickle(turn, "good")
    async with simulated_engines(2) as engines, running_router(engines, policy=policy) as router:
        for _ in range(10):
            await router.ask()
        assert await faults_of(router) == {(in_house(Fickle), kind): 5}
        facts = await router.policy_facts()
        assert facts["is_quarantined"] is False  # a good answer in between clears its name
        decisions = (await router.metrics())["router_core_policy_decisions_total"]
        by_reason = {}
        for sample in decisions:
            by_reason[sample.labels["reason"]] = by_reason.get(sample.labels["reason"], 0) + sample.value
        assert by_reason == {"fallback": 5, "good": 5}
        assert {outcome.status for outcome in router.record.outcomes} == {"success"}
        assert not any(map(any, router.load()))


async def test_faults_in_a_row_end_in_quarantine_and_requests_go_on(simulated_engines):
    policy = fickle("raise", quarantine_after=3)
    async with simulated_engines(2) as engines, running_router(engines, policy=policy) as router:
        served = [await router.ask() for _ in range(12)]
        assert sorted(served) == ["a"] * 6 + ["b"] * 6  # the least loaded take turns
        assert await faults_of(router) == {(in_house(Fickle), "raised"): 3}  # not asked any more
        assert (await router.policy_facts())["is_quarantined"] is True
        (quarantined,) = (await router.metrics())["router_core_policy_quarantined"]
        assert quarantined.value == 1
        assert len(router.record.completed) == 12
        assert not any(map(any, router.load()))


async def test_fallback_fail_answers_503(simulated_engine):
    policy = fickle("raise", "good", fallback="fail")
    async with simulated_engine() as engine, running_router([engine], policy=policy) as router:
        for expected in (503, 200, 503, 200):
            async with router.post() as response:
                assert response.status == expected
                document = await response.json()
            assert expected == 200 or document["error"]["code"] == "no_suitable_worker"
        assert engine.accepted == 2
        samples = (await router.metrics())["router_core_unrouted_requests_total"]
        (unrouted,) = (sample for sample in samples if sample.value)
        assert (unrouted.labels["reason"], unrouted.value) == ("no_suitable_worker", 2)
        await router.settled(2)


async def test_a_policy_that_finds_nobody_suitable_is_503_and_no_fault(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], policy=fickle("none")) as router:
        async with router.post() as response:
            assert response.status == 503
            assert (await response.json())["error"]["message"] == "The policy found none of the workers suitable."
        assert await faults_of(router) == {}
        assert engine.accepted == 0
        assert router.record.completed == []


async def test_a_late_answer_is_used_and_counted(simulated_engine):
    policy = {"name": in_house(LeastLoaded), "budget_s": 1e-9, "quarantine_after": 4}
    async with simulated_engine() as engine, running_router([engine], policy=policy) as router:
        for _ in range(6):
            await router.ask()
        assert await faults_of(router) == {(in_house(LeastLoaded), "over_budget"): 4}
        assert (await router.policy_facts())["is_quarantined"] is True


async def test_bad_plugin_from_a_folder_that_raises_everywhere_stops_nobody(simulated_engines, import_path):
    async with (
        simulated_engines(2) as engines,
        running_router(engines, policy="bad_raising:Raising", app_dir=BAD_PLUGINS) as router,
    ):
        for _ in range(8):
            await router.ask()
        assert sum((await faults_of(router)).values()) >= 5
        assert (await router.policy_facts())["is_quarantined"] is True
        assert len(router.record.completed) == 8


async def test_no_clients_body_can_make_a_policy_fail(simulated_engine):
    deep = b"[" * 900 + b"]" * 900
    bodies = [
        b'{"messages":[{"role":"user","content":%b}]}' % deep,
        b'{"prompt":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"messages":{"role":1}}',
        b'{"messages":[null,1,"x",{"content":[1,[2,{"text":[]}]],"role":{}}]}',
        b'{"user":"\\ud800","messages":[{"content":"\\udfff"}]}',
        b"\xff\xfe",
        b"",
        b"[]",
        b'"text"',
    ]
    async with simulated_engine() as engine, running_router([engine], policy="cache_aware") as router:
        for body in bodies:
            async with router.session.post(router.url + "/v1/chat/completions", data=body) as response:
                await response.read()
        assert len(router.record.selected) == len(router.record.completed) == len(bodies)
        assert await faults_of(router) == {}
        assert not any(map(any, router.load()))


async def test_faults_while_listening_hide_nothing_from_observers(simulated_engine):
    policy = {"name": in_house(DeafToTheEnd), "quarantine_after": 1000}
    async with simulated_engine() as engine, running_router([engine], policy=policy) as router:
        for _ in range(3):
            await router.ask()
        outcomes = await router.settled(3)
        assert {outcome.status for outcome in outcomes} == {"success"}
        assert len(router.record.first_tokens) == 3
        assert await faults_of(router) == {(in_house(DeafToTheEnd), "raised"): 6}


async def test_observer_that_raises_hides_nothing_from_the_others(simulated_engine):
    observers = [in_house(BadObserver), "metrics", in_house(CompletionWatch)]
    async with simulated_engine() as engine, running_router([engine], observers=observers) as router:
        for _ in range(3):
            await router.ask()
        await router.settled(3)
        (ended,) = (await router.metrics())["router_core_requests_total"]
        assert ended.value == 3
        assert await faults_of(router) == {(in_house(BadObserver), "raised"): 3}
