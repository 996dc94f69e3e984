"""One pool's policy, wrappers and observers behind typed methods.

Every call of a plugin's is isolated here: whatever a plugin does, a request gets an answer and no plugin suffers from
another's fault. `select_single` and `request_complete` run once an attempt, so they are written tight.

Of a synchronous hook everything is caught, a library's `SystemExit` or the `CancelledError` of a future it looked at
too: such a hook is called from the event loop's own callbacks, where nothing else could raise them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from router_core.contract.errors import PolicyContractError, StartupError
from router_core.contract.policy import least_loaded
from router_core.contract.pool import PoolContext
from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.plugin_host.answers import Misfit, discard, match_pair, match_single
from router_core.plugin_host.conduct import Conduct
from router_core.plugin_host.decision_times import DecisionTimes
from router_core.plugin_host.faults import FaultLimits, FaultLog
from router_core.plugin_host.host import HookCall, PluginHost, ending, needs_of, stop_quietly
from router_core.plugin_host.legs import compose_decode, compose_pair
from router_core.plugin_host.observers import Observers, observer_problems
from router_core.plugin_host.slips import check_plugin
from router_core.plugin_host.watchdog import Watchdog

Fallback = Literal["least_loaded", "fail"]

_LOGGER = logging.getLogger(__name__)
_NO_LIMITS_GIVEN = FaultLimits()


class Succeeded(Protocol):
    """A manager whose place another takes."""

    observers: Observers
    keeps_observers: bool


class PolicyManager:
    """One pool's policy, its wrappers and its observers.

    Attributes:
        name: The policy's name, as in the config.
        source: Its distribution and version.
        needs: What policy, wrappers and observers need of a request, together.
        wants_first_token: Whether anybody listens to `on_first_token`.
        decision_times: Selections the policy answered, by what they took.
        faults: Faults by plugin and kind, observers' included; a live view.
        in_flight: Attempts placed and not completed; whoever places them counts them here.
        keeps_observers: Whether its observers are stopped with it.
        on_idle: Called when an attempt completes and none is left in flight.
    """

    def __init__(
        self,
        policy: object,
        *,
        name: str,
        source: str = "in-house",
        wrappers: Sequence[tuple[str, object]] = (),
        observers: Sequence[tuple[str, object]] = (),
        fallback: Fallback = "least_loaded",
        limits: FaultLimits = _NO_LIMITS_GIVEN,
        needs_pair: bool = False,
        watchdog: Watchdog | None = None,
        log: FaultLog | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Check the plugins and make ready; no hook is called yet.

        Args:
            policy: The policy's instance.
            name: The policy's name, as in the config.
            source: Distribution and version, for messages.
            wrappers: Name and instance of each, the first one outermost. Their faults count as the policy's.
            observers: Name and instance of each.
            fallback: Who chooses when the policy cannot: the least loaded, or nobody (the client gets 503).
            limits: How much is borne.
            needs_pair: Whether the pool places prefill/decode pairs.
            watchdog: One shared with other pools, on the same clock; one of its own otherwise.
            log: Where faults are counted, if they go on from another manager's.
            clock: Seconds; what budgets are measured by.

        Raises:
            PolicyContractError: A plugin breaks the hook contract; every slip of every plugin is listed.
        """
        self.name = name
        self.source = source
        self._label = f"policy {name!r} ({source})"
        problems = check_plugin(policy, "policy", self._label, needs_pair=needs_pair)
        for each, wrapper in wrappers:
            problems += check_plugin(wrapper, "wrapper", f"wrapper {each!r}")
        problems += observer_problems(observers)
        if problems:
            raise PolicyContractError(problems)

        self._fallback: Fallback = fallback
        self._limits = limits
        self._clock = clock
        self.in_flight = 0
        self.keeps_observers = True
        self.on_idle: Callable[[], None] | None = None
        self._log = FaultLog(_LOGGER, clock) if log is None else log
        self.faults: Mapping[tuple[str, str], int] = self._log.counts
        self._conduct = Conduct(name, self._label, limits=limits, log=self._log, refuses=fallback == "fail")
        self.decision_times = DecisionTimes()
        self._budget_s = limits.budget_s

        # One manager for the policy and all wrappers: that is what lets them wrap. Life is each plugin's own.
        own = PluginHost(name, self._label, [policy])
        others = [PluginHost(each, f"wrapper {each!r}", [wrapper]) for each, wrapper in wrappers]
        self._lives = [own, *others]
        stack = PluginHost(name, self._label, [policy, *(w for _, w in wrappers)]) if wrappers else own
        self._running = stack.running
        self._call_single = stack.hook("select_single")
        self._call_pair = stack.hook("select_pair") if own.hook("select_pair") else None
        self._call_first_token = stack.hook("on_first_token")
        self._call_complete = stack.hook("on_request_complete")
        self._call_added = stack.hook("on_worker_added")
        self._call_removed = stack.hook("on_worker_removed")

        self._names = (name, *(each for each, _ in wrappers))
        self.observers = Observers(observers, limits=limits, log=self._log, clock=clock)
        self.needs = needs_of([policy, *(wrapper for _, wrapper in wrappers)]) | self.observers.needs
        self.wants_first_token = self._call_first_token is not None or self.observers.wants_first_token
        self._watchdog = Watchdog(clock=clock) if watchdog is None else watchdog
        self._watched = (stack.running, *(life.running for life in self._lives), *self.observers.running)

    @property
    def is_quarantined(self) -> bool:
        """Whether the policy is cut off after too many faults in a row, until it is replaced."""
        return self._conduct.is_quarantined

    @property
    def plugins(self) -> tuple[str, ...]:
        """The names of the policy, its wrappers and observers."""
        return (*self._names, *self.observers.names)

    @property
    def fault_log(self) -> FaultLog:
        """Where its faults are counted."""
        return self._log

    def succeed(self, other: Succeeded) -> None:
        """Take the place of another manager: its observers go on here. This one must have been made without any.

        The other goes on telling them of the attempts it has placed, but no longer stops them.
        """
        self.observers = other.observers
        other.keeps_observers = False
        self.needs |= self.observers.needs
        self.wants_first_token = self.wants_first_token or self.observers.wants_first_token
        self._watched = (*self._watched, *self.observers.running)
        self._watchdog.watch(self.observers.running)

    # --- choosing ---

    def select_single(self, workers: tuple[Worker, ...], request: RoutingRequest) -> Worker | None:
        """Return the worker for a request, always one of `workers`; None means 503.

        Args:
            workers: The healthy candidates, at least one.
            request: What is to be placed; `request.reason` says why afterwards.
        """
        request.reason = None
        call = self._call_single
        if call is None or self._conduct.is_quarantined:
            return self._fall_back(workers, request)
        running = self._running
        running.entered_at = began = self._clock()
        try:
            answer: object = call(workers=workers, request=request)
            took = self._clock() - began
        except BaseException as error:  # noqa: BLE001  # plugin code: isolated, logged by name
            self._conduct.raised("select_single", error)
            return self._fall_back(workers, request)
        finally:
            running.entered_at = None
        self.decision_times.note(took)
        if took <= self._budget_s:
            for worker in workers:  # by identity, and quicker than `in`, which compares
                if worker is answer:
                    if self._conduct.strikes:
                        self._conduct.strikes.pop("select_single", None)
                    return worker
        return self._judge_single(answer, took, workers, request)

    def select_pair(
        self, prefill_workers: tuple[Worker, ...], decode_workers: tuple[Worker, ...], request: RoutingRequest
    ) -> tuple[Worker, Worker] | None:
        """Return the prefill and the decode worker of a request; None means 503.

        Without the hook `select_pair` it is two calls of `select_single`, one for each leg.
        """
        call = self._call_pair
        if call is None:
            return compose_pair(self.select_single, self.select_single, prefill_workers, decode_workers, request)
        request.reason = None
        if self._conduct.is_quarantined:
            return self._fall_back_pair(prefill_workers, decode_workers, request)
        running = self._running
        running.entered_at = began = self._clock()
        try:
            answer: object = call(prefill_workers=prefill_workers, decode_workers=decode_workers, request=request)
            took = self._clock() - began
        except BaseException as error:  # noqa: BLE001  # plugin code: isolated, logged by name
            self._conduct.raised("select_pair", error)
            return self._fall_back_pair(prefill_workers, decode_workers, request)
        finally:
            running.entered_at = None
        self.decision_times.note(took)
        pair = None if answer is None else match_pair(answer, prefill_workers, decode_workers)
        if isinstance(pair, Misfit):
            discard(answer)
            self._conduct.misfit("select_pair", pair)
            return self._fall_back_pair(prefill_workers, decode_workers, request)
        self._conduct.answered("select_pair", took)
        return pair

    def select_decode(
        self, prefill_worker: Worker, decode_workers: tuple[Worker, ...], request: RoutingRequest
    ) -> Worker | None:
        """Return a decode worker for what a prefill worker has computed already; None when none is suitable.

        A policy that only chooses pairs is given the one prefill worker.
        """
        if self._call_single is None:
            pair = self.select_pair((prefill_worker,), decode_workers, request)
            return None if pair is None else pair[1]
        return compose_decode(self.select_single, decode_workers, request)

    # --- telling ---

    def first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """Tell everybody that prefill is over. Skip the call when `wants_first_token` is false."""
        if self._call_first_token is not None:
            self._tell("on_first_token", self._call_first_token, worker=worker, request=request)
        self.observers.first_token(worker, request)

    def request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Tell everybody that an attempt ended; exactly once for each reservation."""
        if self._call_complete is not None:
            self._tell(
                "on_request_complete",
                self._call_complete,
                worker_url=worker.url,
                success=outcome.is_success,
                worker=worker,
                request=request,
                outcome=outcome,
            )
        self.observers.request_complete(worker, request, outcome)
        self.in_flight -= 1
        if self.on_idle is not None and self.in_flight <= 0:
            self.on_idle()

    def worker_added(self, worker: Worker) -> None:
        """Tell everybody that a worker joined the pool."""
        if self._call_added is not None:
            self._tell("on_worker_added", self._call_added, worker=worker)
        self.observers.worker_added(worker)

    def worker_removed(self, worker: Worker) -> None:
        """Tell everybody that a worker left the pool."""
        if self._call_removed is not None:
            self._tell("on_worker_removed", self._call_removed, worker=worker)
        self.observers.worker_removed(worker)

    # --- life ---

    async def start(self, make_context: Callable[[str], PoolContext]) -> None:
        """Start the policy, its wrappers, then the observers, each with a context of its own.

        Call it in the thread in which requests are placed.

        Args:
            make_context: From a plugin's name to its context; a `Stoppable` one is stopped with the plugin.

        Raises:
            StartupError: The policy or a wrapper cannot start; what had started is stopped again.
        """
        self._watchdog.watch(self._watched)
        try:
            for life in self._lives:
                try:
                    await life.start(make_context, self._log, self._limits, self._clock)
                except Exception as error:
                    raise StartupError([f"{life.label}: on_start {ending(error)}"]) from error
            await self.observers.start(make_context)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what was started, in reverse; a quarantined policy too. Faults are logged; never raises one."""
        if self.keeps_observers:
            await self.observers.stop()
        for life in reversed(self._lives):
            await stop_quietly(life, self._log, self._limits, self._clock)
        self._watchdog.release(self._watched)

    # --- when something is wrong ---

    def _judge_single(
        self, answer: object, took: float, workers: tuple[Worker, ...], request: RoutingRequest
    ) -> Worker | None:
        worker = None if answer is None else match_single(answer, workers)
        if isinstance(worker, Misfit):
            discard(answer)
            self._conduct.misfit("select_single", worker)
            return self._fall_back(workers, request)
        self._conduct.answered("select_single", took)
        return worker

    def _fall_back(self, workers: tuple[Worker, ...], request: RoutingRequest) -> Worker | None:
        request.explain("fallback")
        return None if self._fallback == "fail" else least_loaded(workers)

    def _fall_back_pair(
        self, prefill_workers: tuple[Worker, ...], decode_workers: tuple[Worker, ...], request: RoutingRequest
    ) -> tuple[Worker, Worker] | None:
        request.explain("fallback")
        return None if self._fallback == "fail" else (least_loaded(prefill_workers), least_loaded(decode_workers))

    def _tell(self, hook: str, call: HookCall, **arguments: object) -> None:
        conduct = self._conduct
        if conduct.is_quarantined:
            return
        running = self._running
        running.entered_at = self._clock()
        try:
            call(**arguments)
        except BaseException as error:  # noqa: BLE001  # plugin code: isolated, logged by name
            conduct.raised(hook, error)
        else:
            if conduct.strikes:
                conduct.strikes.pop(hook, None)
        finally:
            running.entered_at = None
