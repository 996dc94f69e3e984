"""Plugins behind one pluggy manager: who implements which hook, and their start and stop. The only file with pluggy.

What is got by `PluginHost.hook` is called by `manager.py` and `observers.py` alone, which isolate what goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pluggy

from router_core.contract.errors import PolicyContractError
from router_core.contract.hookspecs import PROJECT_NAME, PolicySpec
from router_core.contract.pool import PoolContext
from router_core.plugin_host.faults import FaultKind, FaultLimits, FaultLog, describe
from router_core.plugin_host.life import HasTimers, HookTimeoutError, Stoppable, await_bounded
from router_core.plugin_host.watchdog import Running

HookCall = Callable[..., Any]  # Any: what a plugin returns is judged by who calls it


class PluginHost:
    """A pluggy manager with the plugins in it, and the life of the first of them."""

    def __init__(self, name: str, label: str, plugins: Iterable[object]) -> None:
        self.name = name
        self.label = label
        self.running = Running(label)
        self.context: PoolContext | None = None
        self._manager = pluggy.PluginManager(PROJECT_NAME)
        self._manager.add_hookspecs(PolicySpec)
        try:
            for number, plugin in reversed(list(enumerate(plugins))):  # pluggy calls the latest first
                self._manager.register(plugin, f"{name}:{number}")
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:  # what slips.py did not foresee
            raise PolicyContractError([f"{label}: {error}"]) from error

    def hook(self, name: str) -> HookCall | None:
        """Return what calls a hook, None when nobody implements it."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, name)
        implementations = caller.get_hookimpls()
        if len(implementations) == 1 and not (implementations[0].wrapper or implementations[0].hookwrapper):
            is_first_result = caller.spec is not None and bool(caller.spec.opts["firstresult"])
            return _direct(implementations[0], is_first_result=is_first_result)
        return caller if implementations else None

    async def start(
        self,
        make_context: Callable[[str], PoolContext],
        log: FaultLog,
        limits: FaultLimits,
        clock: Callable[[], float],
    ) -> None:
        """Give the plugin its context and await its `on_start`; whatever that raises goes on.

        What its timers raise is counted in `log`, and they are watched as its hooks are.
        """
        context = make_context(self.name)
        if isinstance(context, HasTimers):
            context.call_timer = partial(self._call_timer, log, clock)
        try:
            await self._live(self.hook("on_start"), limits, clock, pool=context)
        except BaseException:
            _stop_timers(context)
            raise
        self.context = context

    async def stop(self, limits: FaultLimits, clock: Callable[[], float]) -> None:
        """Await the plugin's `on_stop`, if it was started, and end its timers; whatever that raises goes on."""
        context, self.context = self.context, None
        if context is None:
            return
        try:
            await self._live(self.hook("on_stop"), limits, clock)
        finally:
            _stop_timers(context)

    def _call_timer(self, log: FaultLog, clock: Callable[[], float], fn: Callable[[], None]) -> None:
        self.running.entered_at = clock()
        try:
            fn()
        except BaseException as error:  # noqa: BLE001  # plugin code: isolated, logged by name
            timer = f"timer {getattr(fn, '__qualname__', type(fn).__name__)}"
            sentence = f"{self.label}: {timer} raised {describe(error)}; it goes on"
            log.record(self.name, FaultKind.RAISED, timer, sentence, error=error)
        finally:
            self.running.entered_at = None

    async def _live(
        self, call: HookCall | None, limits: FaultLimits, clock: Callable[[], float], **arguments: object
    ) -> None:
        if call is None:
            return
        self.running.entered_at = clock()
        try:
            results = call(**arguments)
        finally:
            self.running.entered_at = None
        await await_bounded(results, timeout_s=limits.life_timeout_s)


def _direct(implementation: pluggy.HookImpl, *, is_first_result: bool) -> HookCall:
    """Return what calls the only implementation of a hook as pluggy would, in a third of the time."""
    function, names = implementation.function, implementation.argnames

    def call(**arguments: object) -> object:
        result = function(*[arguments[name] for name in names])
        if is_first_result:
            return result
        return [] if result is None else [result]

    return call


async def stop_quietly(host: PluginHost, log: FaultLog, limits: FaultLimits, clock: Callable[[], float]) -> None:
    """Stop a host; what goes wrong is logged, never raised."""
    try:
        await host.stop(limits, clock)
    except Exception as error:  # noqa: BLE001  # plugin code: isolated, logged by name
        log.record(host.name, kind_of(error), "on_stop", f"{host.label}: on_stop {ending(error)}", error=error)


def _stop_timers(context: PoolContext) -> None:
    if isinstance(context, Stoppable):
        context.stop()


def kind_of(error: Exception) -> FaultKind:
    """Return the kind of fault that an error of `on_start` or `on_stop` is."""
    return FaultKind.TIMED_OUT if isinstance(error, HookTimeoutError) else FaultKind.RAISED


def ending(error: Exception) -> str:
    """Say how `on_start` or `on_stop` ended."""
    return str(error) if isinstance(error, HookTimeoutError) else f"raised {describe(error)}"


def needs_of(plugins: Iterable[object]) -> frozenset[str]:
    """Return what plugins need of a request, together."""
    return frozenset().union(*(getattr(plugin, "needs", frozenset()) for plugin in plugins))
