"""From the settings to a pool's plugins: found, checked and built, with every problem told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from router_core.config import PluginSelection, PoolSettings, RouterConfig
from router_core.contract.errors import StartupError
from router_core.fleet.membership.supervisor import NamedSource
from router_core.plugin_host.discovery import (
    MEMBERSHIP_GROUP,
    OBSERVER_GROUP,
    PD_PROTOCOL_GROUP,
    POLICY_GROUP,
    WRAPPER_GROUP,
    LoadedPlugin,
    load_policy,
)
from router_core.plugin_host.faults import FaultLimits, FaultLog
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.options import build_policy, build_protocol, build_source
from router_core.plugin_host.pair import PairManager
from router_core.plugin_host.slips import PluginKind
from router_core.plugin_host.watchdog import Watchdog
from router_core.traffic.pd.protocol import PairProtocol

_GROUPS: Mapping[PluginKind, str] = {"policy": POLICY_GROUP, "wrapper": WRAPPER_GROUP, "observer": OBSERVER_GROUP}


def build_manager(
    settings: PoolSettings, replaced: PolicyManager | PairManager | None = None
) -> PolicyManager | PairManager:
    """Load and build a pool's policy, or one for each side of a prefill/decode pool, the wrappers and the observers.

    Args:
        settings: The pool's.
        replaced: Whose place it is to take: then faults are counted on, and there are no observers, for they go on.

    Raises:
        StartupError: With one sentence for each problem of any of them.
    """
    problems: list[str] = []
    chosen = () if replaced is not None else settings.observers
    observers = _build_all(chosen, "observers", "observer", settings.app_dir, problems)
    log = replaced.fault_log if isinstance(replaced, PolicyManager) else None
    watchdog = Watchdog(exit_process=settings.policy.exit_on_hang)
    if settings.prefill_policy is None and settings.decode_policy is None:
        manager = _manager(
            settings,
            settings.policy,
            "policy",
            problems,
            watchdog=watchdog,
            observers=observers,
            needs_pair=settings.pd.is_on,
            log=log,
        )
        if manager is None or problems:
            raise StartupError(problems)
        return manager
    sides = [
        _manager(settings, chosen or settings.policy, where if chosen else "policy", problems, watchdog=watchdog)
        for chosen, where in ((settings.prefill_policy, "prefill_policy"), (settings.decode_policy, "decode_policy"))
    ]
    if sides[0] is None or sides[1] is None or problems:
        raise StartupError(dict.fromkeys(problems))
    return PairManager(sides[0], sides[1], observers=observers, watchdog=watchdog)


def build_pd_protocol(settings: PoolSettings) -> PairProtocol:
    """Load and build a pool's prefill/decode protocol.

    Raises:
        StartupError: It is not installed, or its options do not fit.
    """
    where = settings.place_of("pd")
    try:
        loaded = load_policy(settings.pd.protocol, group=PD_PROTOCOL_GROUP, app_dir=settings.app_dir)
        protocol = build_protocol(loaded, settings.pd.options, where=where)
    except StartupError as error:
        raise StartupError(
            problem if problem.startswith(where) else f"{where}.protocol: {problem}" for problem in error.problems
        ) from error
    # A class that lacks a method of the protocol's fails at the first request; typing it is its author's business.
    return cast("PairProtocol", protocol)


def _manager(
    settings: PoolSettings,
    chosen: PluginSelection,
    where: str,
    problems: list[str],
    *,
    watchdog: Watchdog,
    observers: Sequence[tuple[str, object]] = (),
    needs_pair: bool = False,
    log: FaultLog | None = None,
) -> PolicyManager | None:
    app_dir = settings.app_dir
    policy = _build(chosen, settings.place_of(where), "policy", app_dir, problems, needs_pair=needs_pair)
    wrappers = _build_all(settings.wrappers, settings.place_of("wrappers"), "wrapper", app_dir, problems)
    if policy is None or problems:
        return None
    loaded, instance = policy
    limits = settings.policy
    return PolicyManager(
        instance,
        name=chosen.name,
        source=loaded.source,
        wrappers=wrappers,
        observers=observers,
        fallback=limits.fallback,
        limits=FaultLimits(quarantine_after=limits.quarantine_after, budget_s=limits.budget_s),
        needs_pair=needs_pair,
        watchdog=watchdog,
        log=log,
    )


def build_sources(config: RouterConfig) -> list[NamedSource]:
    """Load the membership sources and check their options.

    Raises:
        StartupError: With one sentence for each problem of any of them.
    """
    problems: list[str] = []
    sources = []
    for index, selection in enumerate(config.membership):
        where = f"membership[{index}]"
        try:
            loaded = load_policy(selection.name, group=MEMBERSHIP_GROUP, app_dir=config.app_dir)
            build = partial(build_source, loaded, selection.options, where=where)
            build()
        except StartupError as error:
            problems.extend(_placed(error, where))
        else:
            sources.append(NamedSource(f"{where} ({selection.name})", build))
    if problems:
        raise StartupError(problems)
    return sources


def _placed(error: StartupError, where: str) -> list[str]:
    return [problem if problem.startswith(where) else f"{where}: {problem}" for problem in error.problems]


def _build_all(
    selections: Iterable[PluginSelection], where: str, kind: PluginKind, app_dir: Path | None, problems: list[str]
) -> list[tuple[str, object]]:
    built = []
    for index, selection in enumerate(selections):
        plugin = _build(selection, f"{where}[{index}]", kind, app_dir, problems)
        if plugin is not None:
            built.append((selection.name, plugin[1]))
    return built


def _build(
    selection: PluginSelection,
    where: str,
    kind: PluginKind,
    app_dir: Path | None,
    problems: list[str],
    *,
    needs_pair: bool = False,
) -> tuple[LoadedPlugin, object] | None:
    try:
        loaded = load_policy(selection.name, group=_GROUPS[kind], app_dir=app_dir)
        return loaded, build_policy(loaded, selection.options, where=where, kind=kind, needs_pair=needs_pair)
    except StartupError as error:
        problems.extend(_placed(error, where))
        return None
