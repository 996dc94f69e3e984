"""Another policy in the place of a pool's, while requests run: nothing is lost, and what cannot be is refused."""

from __future__ import annotations

import asyncio

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError
from router_core.testing.simulated_engine import Fault
from tests.integration.support import in_house, running_router, until

STOPPED: list[str] = []


class Traced:
    """Takes the least loaded worker and remembers what it was told."""

    class Config(PolicyConfig):
        tag: str = "-"

    def __init__(self, config):
        self.tag = config.tag
        self.workers = []
        self.balance = 0

    @hookimpl
    def on_worker_added(self, worker):
        self.workers.append(worker.url)

    @hookimpl
    def select_single(self, workers, request):
        assert set(self.workers) >= {worker.url for worker in workers}
        self.balance += 1
        request.explain(self.tag)
        return min(workers, key=lambda worker: worker.load)

    @hookimpl
    def on_request_complete(self, worker_url):
        self.balance -= 1

    @hookimpl
    def on_stop(self):
        STOPPED.append(f"{self.tag}:{self.balance}")


def traced(tag):
    return {"name": in_house(Traced), "options": {"tag": tag}}


async def put(router, policy, pool="default"):
    async with router.session.put(f"{router.url}/pools/{pool}/policy", json=policy) as response:
        return response.status, await response.json()


async def test_5000_requests_while_the_policy_is_replaced(simulated_engines):
    STOPPED.clear()
    total, at_once, every, served, swaps = 5000, 50, 250, 0, 0
    async with simulated_engines(3) as engines, running_router(engines, policy=traced("0"), wrappers=[]) as router:

        async def client():
            nonlocal served, swaps
            while served < total:
                served += 1
                if served % every == 0:
                    swaps += 1
                    assert (await put(router, traced(str(swaps))))[0] == 200
                await router.ask()

        await asyncio.gather(*(client() for _ in range(at_once)))
        await until(lambda: len(router.record.completed) >= total, "all completions")
        assert len(router.record.completed) == total
        assert {outcome.status for outcome in router.record.outcomes} == {"success"}
        assert set(router.load()) == {(0, 0, 0)}
        assert len({completion.request.reason for completion in router.record.completed}) == swaps + 1 == 21
        await until(lambda: len(STOPPED) == swaps, "every policy that was replaced has stopped")
        samples = (await router.metrics())["router_core_requests_total"]
        assert sum(sample.value for sample in samples) == total
    assert sorted(STOPPED) == sorted(f"{number}:0" for number in range(swaps + 1)), "each after its last completion"


async def test_a_request_under_way_completes_with_the_policy_that_placed_it(simulated_engine):
    STOPPED.clear()
    engine = simulated_engine(fault=Fault.HANG)
    async with engine, running_router([engine], policy=traced("old"), wrappers=[]) as router:
        waiting = asyncio.ensure_future(router.ask())
        await until(lambda: router.load()[0][0] == 1, "a request under way")
        assert (await put(router, traced("new")))[0] == 200
        engine.fault = None
        assert await router.ask()
        assert STOPPED == []
        waiting.cancel()
        await until(lambda: STOPPED == ["old:0"], "the old one stopped")
        assert sorted(completion.request.reason for completion in router.record.completed) == ["new", "old"]


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        ({"name": "no_such_policy"}, "no_such_policy"),
        ({"name": "round_robin", "options": {"nonsense": 1}}, "nonsense"),
        (
            {"name": "round_robin", "fallback": "sometimes"},
            "policy.fallback: 'sometimes' does not fit; give one of least_loaded, fail",
        ),
        ({"name": "round_robin", "option": {}}, "policy.option: unknown setting; did you mean 'options'?"),
        ({"name": "round_robin", "options": 5}, "policy.options: 5 does not fit; give a mapping"),
        ([], "policy: [] does not fit; give a mapping"),
        ({}, 'policy.name: is missing; name the policy, such as {"name": "round_robin"}'),
        ({"fallback": "fail"}, "policy.name: is missing"),
        ({"options": {"tag": "new"}}, "policy.name: is missing"),
    ],
)
async def test_a_policy_that_cannot_be_is_refused_and_the_old_one_stays(simulated_engine, policy, part):
    async with simulated_engine() as engine, running_router([engine], policy=traced("old"), wrappers=[]) as router:
        status, answer = await put(router, policy)
        assert status == 400
        assert part in answer["error"]
        await router.ask()
        assert router.record.completed[0].request.reason == "old"
        assert (await put(router, traced("x"), pool="nobodys"))[0] == 404


async def test_new_settings_are_taken_over_as_a_whole_or_not_at_all(simulated_engine, caplog):
    async with simulated_engine() as engine, running_router([engine], policy=traced("old"), wrappers=[]) as router:
        reloading, old = router.server.reloading, router.server.config
        with pytest.raises(StartupError, match="no_such_policy"):
            await reloading.reload(lambda: changed(old, policy={"name": "no_such_policy"}))
        await router.ask()
        await reloading.reload(lambda: changed(old, policy=traced("new"), port=1))
        await router.ask()
        assert [completion.request.reason for completion in router.record.completed] == ["old", "new"]
        assert "needs a restart: port" in caplog.text
        results = (await router.metrics())["router_core_reloads_total"]
        assert {sample.labels["result"]: sample.value for sample in results} == {"refused": 1, "done": 1}


def changed(config, **settings):
    return config.model_copy(
        update={name: getattr(RouterConfig.model_validate({name: value}), name) for name, value in settings.items()}
    )


async def test_a_quarantined_policy_gets_another_chance(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], policy="round_robin", wrappers=[]) as router:
        router.server.policy._conduct.is_quarantined = True
        assert (await router.policy_facts())["is_quarantined"]
        assert (await put(router, "round_robin"))[0] == 200
        assert not (await router.policy_facts())["is_quarantined"]
        async with router.get("/pools/default") as response:
            pool = await response.json()
            assert (pool["name"], pool["policy"]["name"]) == ("default", "round_robin")
