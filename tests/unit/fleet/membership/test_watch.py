"""The list-and-watch loop against a scripted source and a clock that moves only when the script says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from random import Random

import pytest

from router_core.contract.errors import StartupError
from router_core.fleet.membership.watch import Change, Listing, Reflector, WatchBrokenError, WatchTiming

Step = Callable[[], None] | Change[str] | Exception


class Script:
    """Answers lists and watches as written down, and ends the reflector when nothing is left."""

    def __init__(self, *acts: Listing[str] | Exception | list[Step | float]) -> None:
        self.acts = list(acts)
        self.now = 0.0
        self.calls: list[str] = []
        self.pauses: list[float] = []
        self.states: list[dict[str, str]] = []

    async def list_all(self) -> Listing[str]:
        self.calls.append("list")
        act = self._next()
        if isinstance(act, Exception):
            raise act
        assert isinstance(act, Listing), act
        return act

    async def watch(self, version: str, timeout_s: float) -> AsyncGenerator[Change[str], None]:
        self.calls.append(f"watch {version}")
        act = self._next()
        assert isinstance(act, list), act
        for step in act:
            if isinstance(step, float):
                self.now += step
            elif isinstance(step, Exception):
                raise step
            else:
                assert isinstance(step, Change)
                yield step

    async def play(self, timing: WatchTiming | None = None) -> None:
        reflector = Reflector(
            self,
            lambda items: self.states.append(dict(items)),
            name="script",
            timing=timing or WatchTiming(),
            random=Random(5),
            clock=lambda: self.now,
            sleep=self._sleep,
        )
        with pytest.raises(asyncio.CancelledError):
            await reflector.run()

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def _next(self) -> Listing[str] | Exception | list[Step | float]:
        if not self.acts:
            raise asyncio.CancelledError
        return self.acts.pop(0)


async def test_changes_are_applied_to_the_list():
    script = Script(
        Listing({"a": "1"}, "10"),
        [
            Change("11", "b", "1"),
            Change("11", "b", "1"),
            Change("12", "a", "2"),
            Change("13"),
            Change("14", "b"),
            Change("15", "strange"),
        ],
    )
    await script.play()
    assert script.states == [{"a": "1"}, {"a": "1", "b": "1"}, {"a": "2", "b": "1"}, {"a": "2"}]


async def test_a_watch_that_ended_in_order_goes_on_from_the_last_version():
    script = Script(Listing({}, "10"), [60.0], [Change("12"), 60.0], [Change("15", "a", "1"), 60.0])
    await script.play()
    assert script.calls == ["list", "watch 10", "watch 10", "watch 12", "watch 15"]
    assert script.pauses == []


async def test_after_a_broken_watch_everything_is_listed_anew():
    script = Script(
        Listing({"a": "1", "b": "1"}, "10"), [5.0, WatchBrokenError("gone")], Listing({"b": "1"}, "20"), [60.0]
    )
    await script.play()
    assert script.calls == ["list", "watch 10", "list", "watch 20", "watch 20"]
    assert script.states == [{"a": "1", "b": "1"}, {"b": "1"}, {"b": "1"}]  # a watch that ended well: a sign of life


async def test_the_time_for_a_full_list_comes_without_a_pause():
    timing = WatchTiming(resync_s=100, watch_s=60)
    script = Script(Listing({}, "10"), [60.0], [60.0], Listing({}, "20"), [60.0])
    await script.play(timing)
    assert script.calls == ["list", "watch 10", "watch 10", "list", "watch 20", "watch 20"]
    assert script.pauses == []


async def test_pauses_grow_until_a_watch_has_lasted():
    broken = WatchBrokenError("down")
    script = Script(
        *[broken] * 8, Listing({}, "1"), [1.0, broken], Listing({}, "2"), [40.0, broken], Listing({}, "3"), [60.0]
    )
    await script.play()
    ceilings = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5]
    assert len(script.pauses) == len(ceilings)
    for pause, ceiling in zip(script.pauses, ceilings, strict=True):
        assert ceiling / 2 <= pause <= ceiling


async def test_a_watch_that_ends_at_once_is_a_failure_even_in_order():
    script = Script(Listing({}, "10"), [], Listing({}, "11"), [], Listing({}, "12"), [60.0])
    await script.play()
    assert script.calls[:4] == ["list", "watch 10", "list", "watch 11"]
    assert len(script.pauses) == 2


async def test_a_refusal_ends_it_only_before_the_first_list():
    refusal = StartupError(["no such selector"])
    script = Script(refusal)
    reflector = Reflector(script, lambda items: None, name="script", timing=WatchTiming(), random=Random(5))
    with pytest.raises(StartupError):
        await reflector.run()
    later = Script(Listing({}, "10"), [5.0, WatchBrokenError("x")], refusal, Listing({}, "20"), [60.0])
    await later.play()
    assert later.calls[:5] == ["list", "watch 10", "list", "list", "watch 20"]


async def test_the_same_trouble_is_logged_once(caplog: pytest.LogCaptureFixture):
    down = WatchBrokenError("down")
    await Script(down, down, down, WatchBrokenError("other"), down, Listing({}, "1"), [60.0]).play()
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == ["WARNING"] * 3
