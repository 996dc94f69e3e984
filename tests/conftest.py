"""What every test may use: `async def` tests on uvloop, and simulated engines.

An `async def test_...` needs no marker. It runs on a loop of its own and fails when it takes too long, when it leaves a
task running, or when something nobody awaited went wrong in the background. Async fixtures do not exist here: use
`async with` in the test.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
from typing import Any

import pytest
import uvloop

ASYNC_TEST_TIMEOUT_S = 60.0
"""How long an `async def` test may take; `@pytest.mark.async_timeout(seconds)` changes it for one test."""

LEAK_GRACE_S = 0.5
"""How long a task that is already ending may take to end, after the test has returned."""


def pytest_configure(config: pytest.Config) -> None:
    # Who runs in a shell's background has Ctrl-C ignored, and so would all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line("markers", "async_timeout(seconds): how long an `async def` test may take (60)")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run an `async def` test to its end on a fresh uvloop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    marker = pyfuncitem.get_closest_marker("async_timeout")
    timeout_s = float(marker.args[0]) if marker else ASYNC_TEST_TIMEOUT_S
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    failures: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: failures.append(_describe(context)))
        runner.run(_run_bounded(pyfuncitem.obj(**arguments), timeout_s))
        gc.collect(1)  # a future nobody awaited, or a socket nobody closed, is blamed on the test that left it
    if failures:
        pytest.fail("something failed in the background:\n" + "\n".join(failures), pytrace=False)
    return True


async def _run_bounded(test: Any, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s) as limit:
            await test
    except TimeoutError:
        if limit.expired():
            pytest.fail(f"the test took longer than {timeout_s:g} s", pytrace=True)
        raise
    running = asyncio.all_tasks() - {asyncio.current_task()}
    if running:
        _, leaked = await asyncio.wait(running, timeout=LEAK_GRACE_S)
        if leaked:
            pytest.fail("the test left tasks running:\n" + "\n".join(map(repr, leaked)), pytrace=False)


def _describe(context: dict[str, Any]) -> str:
    exception = context.get("exception")
    return f"{context['message']}: {exception!r}" if exception else str(context["message"])


@pytest.fixture
def simulated_engine() -> Any:
    """A factory: `async with simulated_engine(name="a", ttft_s=0.01) as engine: engine.url`."""
    from router_core.testing.simulated_engine import SimulatedEngine

    return SimulatedEngine


@pytest.fixture
def simulated_engines() -> Any:
    """A factory of several: `async with simulated_engines(3, ttft_s=0.01) as engines`, named a, b, c."""
    from router_core.testing.simulated_engine import simulated_engines

    return simulated_engines
