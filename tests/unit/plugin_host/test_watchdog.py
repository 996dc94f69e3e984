"""A hook that does not return is reported with its plugin and stack, once, from outside."""

import threading

import pytest

from router_core.api import hookimpl
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.watchdog import EXIT_CODE, Running, Watchdog

FOREVER_S = 3600.0


@pytest.fixture
def running():
    return Running("policy 'slow' (in-house)")


def watching(watchdog, running):
    watchdog.watch([running])
    return watchdog


@pytest.fixture
def watchdog(clock, running):
    """One whose thread never looks by itself: tests call `check`."""
    watchdog = watching(Watchdog(clock=clock, poll_s=FOREVER_S), running)
    yield watchdog
    watchdog.release([running])


def test_hook_within_the_limit_is_left_alone(watchdog, running, clock, caplog):
    running.entered_at = clock()
    clock.advance(1.0)
    watchdog.check()
    assert caplog.records == []


def test_hook_over_the_limit_is_reported_with_plugin_and_stack(watchdog, running, clock, caplog):
    running.entered_at = clock()
    clock.advance(1.5)
    watchdog.check()
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert record.getMessage().startswith(
        "policy 'slow' (in-house) has been in a hook for 1.5 s and holds up every request of this process; its stack:"
    )
    assert "test_hook_over_the_limit_is_reported_with_plugin_and_stack" in record.getMessage()


def test_each_occurrence_is_reported_once(watchdog, running, clock, caplog):
    for _ in range(2):
        running.entered_at = clock()
        clock.advance(2)
        watchdog.check()
        watchdog.check()
        running.entered_at = None
        watchdog.check()
    assert len(caplog.records) == 2


def test_process_is_ended_only_where_configured(running, clock, caplog):
    codes = []
    for exit_process in (False, True):
        watchdog = Watchdog(clock=clock, poll_s=FOREVER_S, exit_process=exit_process, end=codes.append)
        watching(watchdog, running)
        running.entered_at = clock()
        clock.advance(2)
        watchdog.check()
        watchdog.release([running])
    assert codes == [EXIT_CODE]
    assert EXIT_CODE == 70
    assert "ending the process with code 70" in caplog.records[-1].getMessage()


def test_thread_starts_with_the_first_plugin_and_ends_with_the_last(clock):
    watchdog, one, two = Watchdog(clock=clock, poll_s=FOREVER_S), Running("one"), Running("two")
    watchdog.watch([])
    assert not watchdog.is_running
    watchdog.watch([one])
    watchdog.watch([two, one])
    watchdog.release([one])
    assert watchdog.is_running
    watchdog.release([two])
    watchdog.release([two])
    assert not watchdog.is_running
    watchdog.watch([one])
    assert watchdog.is_running
    watchdog.release([one])


async def test_thread_sees_a_hook_that_is_stuck(bad, workers, request_, clock, caplog):
    """The hook hangs until the watchdog ends the process; here ending the process lets the hook go on."""
    released = threading.Event()
    watchdog = Watchdog(clock=clock, poll_s=0.001, exit_process=True, end=lambda code: released.set())
    policy = bad("bad_slow:Slow")()

    def dawdle():
        clock.advance(2)
        assert released.wait(30)

    policy.dawdle = dawdle
    manager = PolicyManager(policy, name="slow", watchdog=watchdog, clock=clock)
    await manager.start(lambda name: None)
    assert manager.select_single(workers, request_) is workers[0]
    await manager.stop()
    report = caplog.records[0].getMessage()
    assert report.startswith("policy 'slow' (in-house) has been in a hook for 2.0 s")
    assert "bad_slow.py" in report
    assert "self.dawdle()" in report
    assert not watchdog.is_running


async def test_observers_are_watched_too(clock, workers, caplog):
    watchdog = Watchdog(clock=clock, poll_s=FOREVER_S)

    class Policy:
        @hookimpl
        def select_single(self, workers):
            return workers[0]

    class Stuck:
        @hookimpl
        def on_worker_added(self):
            clock.advance(2)
            watchdog.check()

    manager = PolicyManager(Policy(), name="p", observers=[("stuck", Stuck())], watchdog=watchdog, clock=clock)
    await manager.start(lambda name: None)
    manager.worker_added(workers[0])
    clock.advance(2)
    watchdog.check()
    await manager.stop()
    assert [record.getMessage().partition(" has been")[0] for record in caplog.records] == ["observer 'stuck'"]
