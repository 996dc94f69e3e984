"""Plugins that only watch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from router_core.contract.errors import PolicyContractError
from router_core.contract.pool import PoolContext
from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.plugin_host.faults import FaultKind, FaultLimits, FaultLog, describe
from router_core.plugin_host.host import HookCall, PluginHost, ending, kind_of, needs_of, stop_quietly
from router_core.plugin_host.slips import check_plugin

_LOGGER = logging.getLogger(__name__)
_NO_LIMITS_GIVEN = FaultLimits()


class Observers:
    """Plugins that only watch, each behind a manager of its own: none can hide an event from the others.

    `PolicyManager` keeps one; a pool with two policies (`PairManager`) keeps one for both.
    """

    def __init__(
        self,
        plugins: Sequence[tuple[str, object]],
        *,
        log: FaultLog | None = None,
        limits: FaultLimits = _NO_LIMITS_GIVEN,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if problems := observer_problems(plugins):
            raise PolicyContractError(problems)
        self._log = FaultLog(_LOGGER, clock) if log is None else log
        self._limits = limits
        self._clock = clock
        self.faults: Mapping[tuple[str, str], int] = self._log.counts
        self._hosts = [PluginHost(name, f"observer {name!r}", [plugin]) for name, plugin in plugins]
        self.names = tuple(name for name, _ in plugins)
        self._first_token = self._listeners("on_first_token")
        self._complete = self._listeners("on_request_complete")
        self._added = self._listeners("on_worker_added")
        self._removed = self._listeners("on_worker_removed")
        self.needs = needs_of([plugin for _, plugin in plugins])
        self.wants_first_token = bool(self._first_token)
        self.running = tuple(host.running for host in self._hosts)

    def first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """Tell each that prefill is over."""
        for listener in self._first_token:
            self._tell(listener, worker=worker, request=request)

    def request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Tell each that an attempt ended."""
        for listener in self._complete:
            self._tell(
                listener,
                worker_url=worker.url,
                success=outcome.is_success,
                worker=worker,
                request=request,
                outcome=outcome,
            )

    def worker_added(self, worker: Worker) -> None:
        """Tell each that a worker joined."""
        for listener in self._added:
            self._tell(listener, worker=worker)

    def worker_removed(self, worker: Worker) -> None:
        """Tell each that a worker left."""
        for listener in self._removed:
            self._tell(listener, worker=worker)

    async def start(self, make_context: Callable[[str], PoolContext]) -> None:
        """Start each; one that cannot is logged and counted, and goes on hearing events."""
        for host in self._hosts:
            try:
                await host.start(make_context, self._log, self._limits, self._clock)
            except Exception as error:  # noqa: BLE001  # plugin code: isolated, logged by name
                sentence = f"{host.label}: on_start {ending(error)}; it may miss what it set up there"
                self._log.record(host.name, kind_of(error), "on_start", sentence, error=error)

    async def stop(self) -> None:
        """Stop each, in reverse."""
        for host in reversed(self._hosts):
            await stop_quietly(host, self._log, self._limits, self._clock)

    def _listeners(self, hook: str) -> tuple[_Listener, ...]:
        calls = ((host, host.hook(hook)) for host in self._hosts)
        return tuple(_Listener(hook, host, call) for host, call in calls if call is not None)

    def _tell(self, listener: _Listener, **arguments: object) -> None:
        host = listener.host
        host.running.entered_at = self._clock()
        try:
            listener.call(**arguments)
        except BaseException as error:  # noqa: BLE001  # plugin code: isolated, logged by name
            sentence = f"{host.label}: {listener.hook} raised {describe(error)}"
            self._log.record(host.name, FaultKind.RAISED, listener.hook, sentence, error=error)
        finally:
            host.running.entered_at = None


class _Listener(NamedTuple):
    hook: str
    host: PluginHost
    call: HookCall


def observer_problems(plugins: Sequence[tuple[str, object]]) -> list[str]:
    """Return every slip of every observer, a sentence each."""
    return [problem for name, plugin in plugins for problem in check_plugin(plugin, "observer", f"observer {name!r}")]
