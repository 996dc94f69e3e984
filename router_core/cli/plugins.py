"""From the settings to a pool's plugins: found, checked and built, with every problem told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from router_core.config import PluginSelection, RouterConfig
from router_core.contract.errors import StartupError
from router_core.fleet.membership.supervisor import NamedSource
from router_core.plugin_host.discovery import (
    MEMBERSHIP_GROUP,
    OBSERVER_GROUP,
    POLICY_GROUP,
    WRAPPER_GROUP,
    LoadedPlugin,
    load_policy,
)
from router_core.plugin_host.faults import FaultLimits
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.options import build_policy, build_source
from router_core.plugin_host.slips import PluginKind
from router_core.plugin_host.watchdog import Watchdog

_GROUPS: Mapping[PluginKind, str] = {"policy": POLICY_GROUP, "wrapper": WRAPPER_GROUP, "observer": OBSERVER_GROUP}


def build_manager(config: RouterConfig) -> PolicyManager:
    """Load and build the policy, its wrappers and the observers.

    Raises:
        StartupError: With one sentence for each problem of any of them.
    """
    problems: list[str] = []
    app_dir = config.app_dir
    policy = _build(config.policy, "policy", "policy", app_dir, problems)
    wrappers = _build_all(config.wrappers, "wrappers", "wrapper", app_dir, problems)
    observers = _build_all(config.observers, "observers", "observer", app_dir, problems)
    if policy is None or problems:
        raise StartupError(problems)
    loaded, instance = policy
    chosen = config.policy
    return PolicyManager(
        instance,
        name=chosen.name,
        source=loaded.source,
        wrappers=wrappers,
        observers=observers,
        fallback=chosen.fallback,
        limits=FaultLimits(quarantine_after=chosen.quarantine_after, budget_s=chosen.budget_s),
        watchdog=Watchdog(exit_process=chosen.exit_on_hang),
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
    selection: PluginSelection, where: str, kind: PluginKind, app_dir: Path | None, problems: list[str]
) -> tuple[LoadedPlugin, object] | None:
    try:
        loaded = load_policy(selection.name, group=_GROUPS[kind], app_dir=app_dir)
        return loaded, build_policy(loaded, selection.options, where=where, kind=kind)
    except StartupError as error:
        problems.extend(_placed(error, where))
        return None
