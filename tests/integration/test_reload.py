"""Settings that change while the router runs, on SIGHUP and when the file changes: all of them or none."""

from __future__ import annotations

import signal

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError
from tests.integration.router_process import router_process
from tests.integration.support import RawClient, chat, in_house, running_router, until

LIVES: list[str] = []


class Living:
    """Writes down when it starts and stops; some do not start."""

    class Config(PolicyConfig):
        tag: str
        starts: bool = True

    def __init__(self, config):
        self.config = config

    @hookimpl
    async def on_start(self, pool):
        if not self.config.starts:
            raise RuntimeError("no licence")
        LIVES.append(f"{self.config.tag} starts")

    @hookimpl
    def on_stop(self):
        LIVES.append(f"{self.config.tag} stops")

    @hookimpl
    def select_single(self, workers):
        return workers[0]


def living(tag, *, starts=True):
    return {"name": in_house(Living), "options": {"tag": tag, "starts": starts}}


def three_pools(first, second, rest):
    return {
        "models": [{"name": "first", "policy": first}, {"name": "second", "policy": second}],
        "policy": rest,
        "wrappers": [],
    }


def anew(router, **settings):
    """Return what reads the settings of a running router with some changed."""
    return lambda: RouterConfig.model_validate(router.server.config.model_dump(exclude_unset=True) | settings)


def policies(router):
    return [pool.policy for pool in router.server.pools]


async def test_a_policy_that_does_not_start_leaves_all_pools_as_they_were(simulated_engine, caplog):
    LIVES.clear()
    before = three_pools(living("a"), living("b"), living("c"))
    async with simulated_engine() as engine, running_router([engine], **before) as router:
        old = policies(router)
        changed = three_pools(living("a2"), living("b2"), living("c2", starts=False))
        with pytest.raises(StartupError, match=r"pool default: policy .*Living.*on_start raised.*no licence"):
            await router.server.reloading.reload(anew(router, **changed, log_level="debug"))
        assert policies(router) == old
        assert router.server.reloading.config.log_level == "info"
        assert LIVES == ["a starts", "b starts", "c starts", "a2 starts", "b2 starts", "b2 stops", "a2 stops"]
        assert "not reloaded: pool default" in caplog.text
        results = (await router.metrics())["router_core_reloads_total"]
        assert {sample.labels["result"]: sample.value for sample in results} == {"refused": 1}


async def test_every_problem_of_every_pool_is_said_and_nothing_is_started(simulated_engine):
    LIVES.clear()
    before = three_pools(living("a"), living("b"), living("c"))
    async with simulated_engine() as engine, running_router([engine], **before) as router:
        changed = three_pools({"name": "nobody"}, living("b2"), {"name": "round_robin", "options": {"x": 1}})
        with pytest.raises(StartupError) as refusal:
            await router.server.reloading.reload(anew(router, **changed))
        sentences = "\n".join(refusal.value.problems)
        assert "models[0].policy" in sentences
        assert "policy.options.x" in sentences
        assert LIVES == ["a starts", "b starts", "c starts"]


async def test_a_pool_whose_settings_stay_keeps_its_policy_and_what_it_has_learned(simulated_engine):
    LIVES.clear()
    before = three_pools(living("a"), living("b"), living("c"))
    async with simulated_engine() as engine, running_router([engine], **before) as router:
        old = policies(router)
        await router.server.reloading.reload(anew(router, **three_pools(living("a"), living("b2"), living("c"))))
        new = policies(router)
        assert [new[0] is old[0], new[1] is old[1], new[2] is old[2]] == [True, False, True]
        new[0]._conduct.is_quarantined = True
        await router.server.reloading.reload(anew(router, **three_pools(living("a"), living("b2"), living("c"))))
        assert policies(router)[0] is not new[0], "one that is cut off gets another chance"


async def test_limits_are_taken_over_and_those_who_wait_hear_of_it(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], admission={"max_concurrent_requests": 1}) as router,
        await RawClient.connect(router.url) as running,
        await RawClient.connect(router.url) as waiting,
        await RawClient.connect(router.url) as late,
    ):
        admission = router.server.gate.admission
        running.send(chat(stream=True, max_tokens=100_000, ignore_eos=True))
        await running.read_until(b"content")
        waiting.send()
        await until(lambda: admission.waiting == 1)
        await router.server.reloading.reload(anew(router, admission={"max_concurrent_requests": 2}))
        assert (await waiting.read_answer())[0] == 200
        await router.server.reloading.reload(anew(router, admission={"max_concurrent_requests": 1, "queue_size": 0}))
        late.send()
        assert (await late.read_answer())[0] == 429
        await router.server.reloading.reload(anew(router, admission={}))
        late.send()
        assert (await late.read_answer())[0] == 200
        running.hang_up()
        await until(lambda: admission.running == admission.waiting == 0 and router.is_settled())


async def test_a_queue_that_keys_of_a_file_might_fill_is_warned_of_while_they_do_not(
    simulated_engine, tmp_path, caplog
):
    file = tmp_path / "keys.yaml"
    file.write_text("keys: [{name: a, key: sk-a}]")
    settings = {"auth": {"keys_file": file}, "admission": {"queue_size": 5}}
    async with simulated_engine() as engine, running_router([engine], **settings) as router:
        assert "admission: queue_size has no effect, for nobody waits" in caplog.text
        caplog.clear()
        file.write_text("keys: [{name: a, key: sk-a, max_concurrent_requests: 1}]")
        await router.server.reloading.reload(lambda: router.server.config)
        assert "has no effect" not in caplog.text
        assert router.server.gate.admission.is_needed


async def test_rules_for_keys_are_taken_over(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], auth={"api_key": "sk-a"}) as router:
        async with router.get("/metrics") as response:
            assert response.status == 401
        auth = {"api_key": "sk-a", "open_paths": ["/metrics"], "forward_keys": True}
        await router.server.reloading.reload(anew(router, auth=auth))
        async with router.get("/metrics") as response:
            assert response.status == 200
        async with router.post(headers={"authorization": "Bearer sk-a"}) as response:
            assert response.status == 200
        assert engine.requests[-1].headers["authorization"] == "Bearer sk-a"


async def test_settings_that_need_a_restart_are_named_until_they_are_taken_back(simulated_engine, caplog):
    async with simulated_engine() as engine, running_router([engine]) as router:

        async def degraded():
            async with router.get("/health?verbose") as response:
                signals = (await response.json())["signals"]
            return {each["detail"] for each in signals if each["signal"] == "settings" and each["is_degraded"]}

        before = router.server.config
        changed = anew(router, limits={"stall_timeout_s": 5}, health={"interval_s": 3}, log_level="debug")
        for _ in range(2):  # the second time nothing has changed, and still it waits
            await router.server.reloading.reload(changed)
            assert await degraded() == {"changed, but needs a restart: health.interval_s, limits.stall_timeout_s"}
        assert caplog.text.count("changed, but needs a restart: health.interval_s, limits.stall_timeout_s") >= 2
        with pytest.raises(StartupError):
            await router.server.reloading.reload(anew(router, policy="nobody"))
        (why,) = await degraded()
        assert why.startswith("not reloaded: policy 'nobody' is not installed")
        await router.server.reloading.reload(lambda: before)
        assert await degraded() == set()


# --- as a process ---


async def test_a_change_of_the_file_is_taken_over_and_a_bad_one_refused(simulated_engine, tmp_path):
    file = tmp_path / "router.yaml"
    async with simulated_engine() as engine:

        def write(policy):
            (tmp_path / "new").write_text(
                f"host: 127.0.0.1\nport: 0\nreload_on_change: true\nworker_urls: [{engine.url}]\npolicy: {policy}\n"
            )
            (tmp_path / "new").replace(file)

        write("round_robin")
        async with router_process("--config", str(file)) as router:
            await router.read_until("listening on ")
            write("no_such_policy")
            assert "no_such_policy" in await router.read_until("not reloaded")
            write("least_loaded")
            assert "least_loaded" in await router.read_until("has replaced round_robin")
            await router.read_until("the settings are taken over")
            file.unlink()
            assert "router.yaml" in await router.read_until("not reloaded")
            write("random")
            assert "random" in await router.read_until("has replaced least_loaded")
            assert sum("not reloaded" in line for line in router.lines) == 2, "why is said once for each change"


async def test_to_watch_nothing_is_refused(tmp_path):
    arguments = ("--worker-urls", "http://127.0.0.1:1")
    async with router_process(*arguments, folder=tmp_path, settings={"RELOAD_ON_CHANGE": "true"}) as router:
        assert await router.ended() != 0
        assert any("reload_on_change: there is no file to watch; give --config FILE" in line for line in router.lines)


SLOW_START = """
import asyncio, os, signal
from router_core.api import hookimpl

class Policy:
    @hookimpl
    async def on_start(self, pool):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)

    @hookimpl
    def select_single(self, workers):
        return workers[0]

os.kill(os.getpid(), signal.SIGHUP)
"""


async def test_sighup_before_the_router_listens_is_remembered(simulated_engine, tmp_path):
    """Its policy sends one while it is imported, before the event loop is there, and one while it starts."""
    (tmp_path / "early.py").write_text(SLOW_START)
    async with simulated_engine() as engine:
        arguments = ("--host", "127.0.0.1", "--port", "0", "--policy", "early:Policy", "--worker-urls", engine.url)
        async with router_process(*arguments, folder=tmp_path) as router:
            await router.read_until("listening on ")
            await router.read_until("the settings are taken over")
            router.send_signal(signal.SIGTERM)
            router.send_signal(signal.SIGHUP)
            assert await router.ended() == 0
