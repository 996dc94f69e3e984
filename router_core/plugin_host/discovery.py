"""Which plugins are installed, and how to load exactly one of them.

Listing imports nothing of a plugin; loading imports the one that was named.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from router_core.contract.errors import AmbiguousPolicyError, PolicyLoadError, PolicyNotFoundError
from router_core.plugin_host.distributions import (
    DamagedDistribution,
    Distribution,
    EntryPoint,
    dashed,
    read_distributions,
)
from router_core.plugin_host.faults import describe

POLICY_GROUP = "router_core.policies"
OBSERVER_GROUP = "router_core.observers"
WRAPPER_GROUP = "router_core.wrappers"
MEMBERSHIP_GROUP = "router_core.membership"
PD_PROTOCOL_GROUP = "router_core.pd_protocols"

_IDENTIFIER = r"[^\W\d]\w*"
_TARGET = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*", re.ASCII)
_INSTALLABLE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """One plugin as its distribution's metadata describes it; nothing of it has been imported.

    Attributes:
        name: The entry point's name, as it stands in the router's config.
        group: The entry-point group.
        distribution: The distribution that offers it.
        version: That distribution's version.
        summary: That distribution's one-line summary, may be empty.
        target: Where the class is, `module:Class`.
        problems: What would keep it from being loaded, a sentence each.
    """

    name: str
    group: str
    distribution: str
    version: str
    summary: str
    target: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is installed, sorted by name and distribution, and what could not be read."""

    plugins: tuple[InstalledPlugin, ...]
    damaged: tuple[DamagedDistribution, ...]


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin class and where it came from; `distribution` and `version` are None for an unpackaged one."""

    name: str
    cls: type
    distribution: str | None
    version: str | None
    target: str

    @property
    def source(self) -> str:
        """Where it came from, for messages: `router-policy-random 0.1.0`, or `in-house module:Class`."""
        return f"in-house {self.target}" if self.distribution is None else f"{self.distribution} {self.version}"


def installed_policies(group: str = POLICY_GROUP) -> Inventory:
    """Return every plugin installed in a group, from metadata alone.

    Args:
        group: The entry-point group; policies unless told.
    """
    distributions, damaged, notes = read_distributions()
    offers = list(_offers(distributions, group))
    plugins = []
    for distribution, entry_point in offers:
        rivals = [other for other, point in offers if point.name == entry_point.name]
        problems = [*notes.get(distribution.key, ()), *_target_problems(entry_point.value)]
        if len(rivals) > 1:
            problems.append(_ambiguity(_word(group), entry_point.name, rivals))
        plugins.append(
            InstalledPlugin(
                name=entry_point.name,
                group=group,
                distribution=distribution.name,
                version=distribution.version,
                summary=distribution.summary,
                target=entry_point.value,
                problems=tuple(problems),
            )
        )
    plugins.sort(key=lambda plugin: (plugin.name, plugin.distribution, plugin.target))
    return Inventory(tuple(plugins), tuple(damaged))


def load_policy(name: str, *, group: str = POLICY_GROUP, app_dir: Path | None = None) -> LoadedPlugin:
    """Import one plugin and return its class. No other plugin is touched.

    Args:
        name: An entry point's name, or `module:Class` for a class that is not packaged.
        group: The entry-point group.
        app_dir: Where an unpackaged class is looked up: put first on `sys.path`, and only for such a class.

    Raises:
        PolicyNotFoundError: Nobody offers `name`.
        AmbiguousPolicyError: More than one distribution does.
        PolicyLoadError: The import fails, or the target is not a class.
    """
    if ":" in name:
        return _load_unpackaged(name, group, app_dir)
    distributions, damaged, _ = read_distributions()
    offers = list(_offers(distributions, group))
    hits = [offer for offer in offers if offer[1].name == name]
    if not hits:
        raise PolicyNotFoundError([_not_found(name, group, {point.name for _, point in offers}, damaged)])
    if len(hits) > 1:
        raise AmbiguousPolicyError([_ambiguity(_word(group), name, [distribution for distribution, _ in hits])])
    distribution, entry_point = hits[0]
    place = f"{_word(group)} {name!r} of {distribution.name} {distribution.version} (target {entry_point.value})"
    cls = _load_class(entry_point, place)
    return LoadedPlugin(name, cls, distribution.name, distribution.version, entry_point.value)


def _load_unpackaged(target: str, group: str, app_dir: Path | None) -> LoadedPlugin:
    place = f"in-house {_word(group)} {target!r}"
    if not _TARGET.fullmatch(target):
        raise PolicyLoadError([f"{place}: is not of the form module:Class; write for example my_policies:StickyUser"])
    if app_dir is not None:
        folder = str(app_dir.resolve())
        if not sys.path or sys.path[0] != folder:
            sys.path.insert(0, folder)
        place += f" (looked up in {folder})"
    cls = _load_class(EntryPoint(target, target, group), place)
    return LoadedPlugin(target, cls, None, None, target)


def _load_class(entry_point: EntryPoint, place: str) -> type:
    target = entry_point.value
    if not _TARGET.fullmatch(target):
        raise PolicyLoadError([f"{place}: the target is not of the form module:Class; correct it in the entry point"])
    try:
        found: object = entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that calls sys.exit() when imported is a broken plugin, not our exit
        raise PolicyLoadError([f"{place}: cannot be loaded: {describe(error)}"]) from error
    if inspect.isclass(found):
        return found
    if inspect.isroutine(found):
        problem = "is a function, not a class; name the policy class itself"
    else:
        problem = f"is an instance of {type(found).__name__}, not a class; name the class, the core builds the instance"
    raise PolicyLoadError([f"{place}: {problem}"])


def _offers(distributions: Iterable[Distribution], group: str) -> Iterator[tuple[Distribution, EntryPoint]]:
    for distribution in distributions:
        for entry_point in distribution.entry_points:
            if entry_point.group == group:
                yield distribution, entry_point


def _target_problems(target: str) -> Iterator[str]:
    if not _TARGET.fullmatch(target):
        yield f"its target {target!r} is not of the form module:Class; correct it in the entry point"
        return
    package = target.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(package)  # a top-level name: looks for the file, imports nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        yield f"its module {package!r} is not there; reinstall its distribution"


def _ambiguity(word: str, name: str, rivals: Iterable[Distribution]) -> str:
    offers = " and ".join(sorted(f"{rival.name} {rival.version}" for rival in rivals))
    return f"{word} {name!r} is offered by {offers}; uninstall all but one"


def _not_found(name: str, group: str, installed: set[str], damaged: Iterable[DamagedDistribution]) -> str:
    word = _word(group)
    sentence = f"{word} {name!r} is not installed"
    nearest = difflib.get_close_matches(name, sorted(installed), n=1, cutoff=0.6)
    if nearest:  # of a typo, nobody should be told to install it
        sentence += f"; did you mean {nearest[0]!r}?"
        if word == "policy":
            sentence += " The built-in ones come with pip install 'router-core[policies]'"
    elif word == "policy" and _INSTALLABLE.fullmatch(name):
        sentence += f"; add it with pip install router-policy-{dashed(name)}"
        sentence += ", the built-in ones with pip install 'router-core[policies]'"
    elif word != "policy":
        sentence += "; install the package that offers it, or give another one"
    sentence += f" (installed: {', '.join(sorted(installed)) or 'none'}"
    unreadable = ", ".join(entry.path for entry in damaged)
    return f"{sentence}; unreadable, may hold it: {unreadable})" if unreadable else f"{sentence})"


def _word(group: str) -> str:
    words = {
        OBSERVER_GROUP: "observer",
        WRAPPER_GROUP: "wrapper",
        MEMBERSHIP_GROUP: "membership source",
        PD_PROTOCOL_GROUP: "protocol",
    }
    return words.get(group, "policy")
