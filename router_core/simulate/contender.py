"""A policy that takes part in a simulation, with what the router may put around and beside it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from router_core.contract.errors import StartupError
from router_core.plugin_host.faults import FaultLimits
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.plugin_host.watchdog import Watchdog
from router_core.simulate.plugin import Plugin, split_outside_options

YARDSTICKS: Mapping[str, str] = MappingProxyType(
    {
        "oracle_greedy": "knows every engine's cache and queue and gives a request to whoever answers it first",
        "oracle_pooled": "one queue and one cache for all engines, as if they were one: about the best there can be",
    }
)
"""Pseudo policies that no router could have, and what they do."""

LIMITS = FaultLimits(quarantine_after=0, budget_s=float("inf"))
"""Every fault is counted, none ends the policy's part: the figures say how often it failed."""

HANGS_AFTER_S = 30.0
"""A hook that takes so long is reported: later than in a router, for nobody waits and the machine may be busy."""

_LABEL = re.compile(r"(?P<label>\w[\w.+, -]*)=(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Contender:
    """One policy with its options.

    Attributes:
        name: An installed policy's name, `module:Class`, or a yardstick.
        options: Its options, as in the router's config.
        label: What reports call it.
        make: Makes an instance; None to find the policy by its name. For tests of a policy that is not installed.
        app_dir: Where `module:Class` is looked up, None for `sys.path` as it is.
        decode: Another policy for the decode side of prefill/decode pairs; None to have this one choose both.
        wrappers: Plugins around the policy, outermost first; with `decode` around both.
        observers: Plugins that are told of everything and choose nothing.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: straight from the user
    label: str = ""
    make: Callable[[], object] | None = None
    app_dir: Path | None = None
    decode: Plugin | None = None
    wrappers: tuple[Plugin, ...] = ()
    observers: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def is_yardstick(self) -> bool:
        """Whether it is no policy but a measure for policies."""
        return self.make is None and self.name in YARDSTICKS

    def build(
        self, *, has_pairs: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> PolicyManager | PairManager:
        """Return what the router would have: new instances behind a manager; no hook is called yet.

        Args:
            has_pairs: Whether prefill/decode pairs are chosen.
            clock: Real seconds, to measure decisions by.

        Raises:
            StartupError: A plugin is not installed, breaks the contract, or its options do not fit.
        """
        policy = Plugin(self.name, self.options, self.make, self.app_dir)
        watchdog = Watchdog(limit_s=HANGS_AFTER_S, clock=clock)
        if self.decode is None:
            observers = self._observers()
            return self._manager(policy, has_pairs=has_pairs, clock=clock, watchdog=watchdog, observers=observers)
        if not has_pairs:
            problem = f"policy {self.label}: a policy of its own for decode needs prefill and decode engines; add them"
            raise StartupError([problem])
        sides = [self._manager(side, has_pairs=False, clock=clock, watchdog=watchdog) for side in (policy, self.decode)]
        return PairManager(*sides, observers=self._observers(), watchdog=watchdog, clock=clock)

    def build_around(self, policy: object, clock: Callable[[], float]) -> PolicyManager:
        """Return a manager for an instance that is there already: a yardstick's."""
        return PolicyManager(
            policy,
            name=self.label,
            source="yardstick",
            limits=LIMITS,
            observers=self._observers(),
            watchdog=Watchdog(limit_s=HANGS_AFTER_S, clock=clock),
            clock=clock,
        )

    def _manager(
        self,
        policy: Plugin,
        *,
        has_pairs: bool,
        clock: Callable[[], float],
        watchdog: Watchdog,
        observers: tuple[tuple[str, object], ...] = (),
    ) -> PolicyManager:
        built, source = policy.build("policy", f"policy {self.label}", needs_pair=has_pairs)
        wrappers = [
            (plugin.name, plugin.build("wrapper", f"policy {self.label}, wrapper {plugin.name}")[0])
            for plugin in self.wrappers
        ]
        return PolicyManager(
            built,
            name=policy.name if self.decode is not None else self.label,
            source=source,
            wrappers=wrappers,
            observers=observers,
            limits=LIMITS,
            needs_pair=has_pairs,
            watchdog=watchdog,
            clock=clock,
        )

    def _observers(self) -> tuple[tuple[str, object], ...]:
        built = ((plugin.name, plugin.build("observer", f"observer {plugin.name}")[0]) for plugin in self.observers)
        return tuple(built)

    @classmethod
    def parse(cls, text: str, *, app_dir: Path | None = None) -> Contender:
        """Read `[LABEL=][WRAPPER > ...]NAME[ + DECODE]`, such as `tuned=cache_aware:{cache_threshold: 0.5}`.

        Args:
            text: What stands on the command line; each plugin may have options, a YAML mapping: `NAME:{OPTION: VALUE}`.
            app_dir: Where `module:Class` is looked up.

        Raises:
            StartupError: It cannot be read.
        """
        where = f"--policy {text}"
        label, rest = "", text
        if match := _LABEL.fullmatch(text):
            label, rest = match["label"], match["rest"]
        *around, sides = split_outside_options(rest, ">")
        read = partial(Plugin.parse, where=where, app_dir=app_dir)
        first, *others = map(read, split_outside_options(sides, "+"))
        wrappers = tuple(map(read, around))
        if len(others) > 1:
            raise StartupError([f"{where}: there are two sides; write PREFILL + DECODE"])
        for plugin in (first, *others):
            if plugin.name in YARDSTICKS and (plugin.options or others or wrappers):
                raise StartupError([f"{where}: a yardstick stands alone, without options; remove them"])
        decode = others[0] if others else None
        label = label or rest.strip()
        return cls(first.name, first.options, label, app_dir=app_dir, decode=decode, wrappers=wrappers)
