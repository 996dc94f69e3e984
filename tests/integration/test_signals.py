"""A signal that decisions rest on dies: the router serves on, and says so in health, metrics and log."""

from __future__ import annotations

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.testing.simulated_engine import SimulatedEngine

from .support import chat, in_house, running_router


async def degraded(router) -> dict[str, str]:
    """Return what `/health?verbose` says is degraded, and why."""
    async with router.get("/health?verbose") as response:
        assert response.status == 200
        facts = await response.json()
    found = {each["signal"]: each["detail"] for each in facts["signals"] if each["is_degraded"]}
    assert facts["status"] == ("degraded" if found else "ok")
    for sample in (await router.metrics())["router_core_signal_degraded"]:
        assert bool(sample.value) == (sample.labels["signal"] in found)
    return found


class Dreamer:
    """Expects the whole prompt in every cache."""

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        pass

    @hookimpl
    def select_single(self, workers, request):
        request.explain("dream", cached_share=1.0)
        return workers[0]


async def test_a_policy_that_predicts_what_no_engine_finds_is_shown_up():
    async with SimulatedEngine() as engine, running_router([engine], policy=in_house(Dreamer)) as router:
        assert await degraded(router) == {}
        for number in range(4):
            await router.ask(body=chat(f"{number} " + "never said before " * 1000))
        assert "expected in their caches" in (await degraded(router))["cache_prediction"]


async def test_cache_aware_and_its_engine_agree():
    async with SimulatedEngine() as engine, running_router([engine], policy="cache_aware") as router:
        for number in range(6):
            await router.ask(body=chat("the same long story again and again " * 300 + str(number)))
        assert await degraded(router) == {}
        samples = await router.metrics()
        predicted, reported = (
            samples[f"router_core_cache_check_{which}_tokens_total"][0].value for which in ("predicted", "reported")
        )
        assert 0.8 < reported / predicted < 1.2


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_quarantined_policy_is_a_degraded_signal(is_silent):
    policy = {"name": in_house(Broken), "quarantine_after": 2}
    async with SimulatedEngine() as engine, running_router([engine], policy=policy) as router:
        for _ in range(2 if is_silent else 1):
            await router.ask()
        assert ("policy" in await degraded(router)) is is_silent


class Broken:
    """Raises."""

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        pass

    @hookimpl
    def select_single(self, workers, request):
        raise RuntimeError("no idea")
