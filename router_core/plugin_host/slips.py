"""The slips pluggy lets pass silently, each turned into one sentence: thing, place, remedy.

Looks at a plugin's class only; nothing is called and no instance is made.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from router_core.contract.hookspecs import ASYNC_HOOKS, PROJECT_NAME, SELECT_HOOKS, PolicySpec
from router_core.contract.policy import PolicyConfig

PluginKind = Literal["policy", "observer", "wrapper"]

_MARKER = f"{PROJECT_NAME}_impl"
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)[1:]
    for name, function in vars(PolicySpec).items()
    if hasattr(function, f"{PROJECT_NAME}_spec")
}
_NEEDS = ("text", "prefix", "telemetry")
_HEADER = re.compile(r"header:[a-z0-9!#$%&'*+.^_`|~-]+")


def find_slips(cls: type, *, kind: PluginKind, needs_pair: bool = False) -> list[str]:
    """Return every slip in a plugin's class, one sentence each; an empty list means none.

    Args:
        cls: The class an entry point names.
        kind: What it is used as.
        needs_pair: Whether the pool places prefill/decode pairs, where `select_pair` alone is enough.
    """
    slips = find_hook_slips(cls, kind=kind, needs_pair=needs_pair)
    needs = inspect.getattr_static(cls, "needs", frozenset())
    if not hasattr(needs, "__get__"):  # a property or slot is looked at once there is an instance
        slips.extend(find_needs_slips(cls, needs))
    slips.extend(find_config_slips(cls))
    return slips


def check_plugin(plugin: object, kind: PluginKind, label: str, *, needs_pair: bool = False) -> list[str]:
    """Return every slip of an instance, each with `label` in front. How it was built is its builder's business."""
    cls = type(plugin)
    slips = find_hook_slips(cls, kind=kind, needs_pair=needs_pair)
    slips.extend(find_needs_slips(cls, getattr(plugin, "needs", frozenset())))
    return [f"{label}: {slip}" for slip in slips]


def find_hook_slips(cls: type, *, kind: PluginKind, needs_pair: bool = False) -> list[str]:
    """Return the slips in a plugin's hooks; parameters as in `find_slips`."""
    methods = list(_hook_methods(cls))
    slips = [slip for method in methods for slip in _method_slips(cls, method, kind)]
    if kind == "policy":
        slips.extend(_select_slips(cls, methods, needs_pair=needs_pair))
    return slips


def find_needs_slips(cls: type, needs: object) -> list[str]:
    """Return what is wrong with the value of a plugin's `needs`, on its class or on the instance."""
    place = f"{cls.__name__}.needs"
    if not isinstance(needs, frozenset):
        return [f"{place} is a {type(needs).__name__}; write a frozenset, such as needs = frozenset({{'prefix'}})"]
    slips = []
    for need in sorted(needs, key=repr):
        if not isinstance(need, str):
            slips.append(f"{place} holds {need!r}; entries are strings: {_list(_NEEDS)} or 'header:<lower-case-name>'")
        elif need not in _NEEDS and not _HEADER.fullmatch(need):
            if _HEADER.fullmatch(need.lower()):
                hint = f"; write {need.lower()!r}"
            else:
                hint = _nearest(need, _NEEDS) or f"; known are {_list(_NEEDS)} and 'header:<lower-case-name>'"
            slips.append(f"{place} holds {need!r}, which is unknown{hint}")
    return slips


def find_config_slips(cls: type) -> list[str]:
    """Return what keeps the core from building an instance: the nested `Config` and the constructor."""
    config = getattr(cls, "Config", None)
    if config is not None and not (inspect.isclass(config) and issubclass(config, PolicyConfig)):
        return [f"{cls.__name__}.Config is not a PolicyConfig; write class Config(PolicyConfig)"]
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return []  # a constructor written in C: it is tried when the instance is built
    try:
        signature.bind(*([] if config is None else [config]))
    except TypeError:
        place = f"{cls.__name__}.__init__"
        if config is None:
            return [f"{place} wants arguments but there is no Config; nest a class Config(PolicyConfig), or take none"]
        return [f"{place} does not take the config alone; write def __init__(self, config: Config) -> None"]
    return []


@dataclass(frozen=True, slots=True)
class _Method:
    """One attribute that is a hook, or would like to be. `function` is None for what pluggy cannot call."""

    name: str
    hook: str
    marker: dict[str, Any] | None  # Any: pluggy's own options
    function: Callable[..., object] | None
    binds: bool
    kind: str


def _hook_methods(cls: type) -> Iterator[_Method]:
    """Yield what carries the marker or has the name of a hook, inherited ones included, as pluggy would see it."""
    for name in dir(cls):
        static = inspect.getattr_static(cls, name, None)
        inner = static.__func__ if isinstance(static, staticmethod | classmethod) else static
        if isinstance(static, property):
            inner = static.fget
        marker = getattr(static, _MARKER, None) if not inspect.isclass(static) else None
        marker = getattr(inner, _MARKER, None) if marker is None and not inspect.isclass(inner) else marker
        if not isinstance(marker, dict):
            marker = None
        hook = (marker and marker.get("specname")) or name
        if marker is None and (name not in _ARGUMENTS or static is None):
            continue  # `on_stop = None` switches an inherited hook off
        is_method = inspect.isfunction(inner) and not isinstance(static, property)
        yield _Method(
            name=name,
            hook=hook,
            marker=marker,
            function=inner if is_method else None,
            binds=not isinstance(static, staticmethod),
            kind=type(static).__name__,
        )


def _method_slips(cls: type, method: _Method, kind: PluginKind) -> Iterator[str]:
    place = f"{cls.__name__}.{method.name}"
    # 1. No method at all: pluggy skips it.
    if method.function is None:
        yield f"{place} is a {method.kind}, which is never called; make it a plain method"
        return
    # 2. No such hook.
    if method.hook not in _ARGUMENTS:
        hint = _nearest(method.hook, _ARGUMENTS) or f"; hooks are {_list(sorted(_ARGUMENTS))}"
        yield f"{place} carries @hookimpl, but there is no hook {method.hook!r}{hint}"
        return
    # 3. No marker: pluggy never sees it.
    if method.marker is None:
        yield f"{place} has the name of a hook but no @hookimpl, so it is never called; put @hookimpl above it"
    else:
        yield from _marker_slips(place, method, method.marker, kind)
    # 4. How it is written.
    yield from _nature_slips(place, method, is_wrapper=bool(method.marker and _wraps(method.marker)))
    yield from _parameter_slips(place, method)
    if kind == "observer" and method.hook in SELECT_HOOKS:
        yield f"{place}: an observer may not select; remove it, or offer the class as a policy"


def _wraps(marker: dict[str, Any]) -> bool:
    return bool(marker.get("wrapper") or marker.get("hookwrapper"))


def _marker_slips(place: str, method: _Method, marker: dict[str, Any], kind: PluginKind) -> Iterator[str]:
    if _wraps(marker):
        spelt = "wrapper" if marker.get("wrapper") else "hookwrapper"
        if kind != "wrapper":
            article = "an" if kind == "observer" else "a"
            yield f"{place} is marked {spelt}=True, which {article} {kind} may not use; write a plain @hookimpl"
        elif spelt == "hookwrapper":
            yield f"{place} is marked hookwrapper=True, pluggy's old form; write @hookimpl(wrapper=True)"
        elif method.hook in ASYNC_HOOKS:
            yield f"{place} wraps {method.hook}, which each plugin has for itself; write a plain @hookimpl"
    elif kind == "wrapper" and method.hook in SELECT_HOOKS:
        yield f"{place} would replace the policy's own; write @hookimpl(wrapper=True) and yield once"


def _nature_slips(place: str, method: _Method, *, is_wrapper: bool) -> Iterator[str]:
    function = inspect.unwrap(method.function) if method.function is not None else None
    if inspect.isasyncgenfunction(function):
        yield f"{place} is an async generator, whose body never runs; make it a plain def without yield"
    elif inspect.iscoroutinefunction(function):
        if method.hook not in ASYNC_HOOKS:
            yield f"{place} is async, but nobody awaits it; make it a plain def (on_start and on_stop may be async)"
    elif inspect.isgeneratorfunction(function) and not is_wrapper:
        yield f"{place} is a generator, whose body never runs; use return instead of yield"
    elif is_wrapper and not inspect.isgeneratorfunction(function):
        yield f"{place} is marked as a wrapper but never yields; write outcome = yield, then return outcome"


def _parameter_slips(place: str, method: _Method) -> Iterator[str]:
    if method.function is None:
        return
    known = _ARGUMENTS[method.hook]
    parameters = list(inspect.signature(method.function).parameters.values())
    if method.binds:
        if not parameters or parameters[0].name in known:
            yield f"{place} does not take self; write def {method.hook}({', '.join(('self', *known))})"
        elif parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            parameters = parameters[1:]
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            yield f"{place}: *{name} never receives anything; name the parameters you use{_choice(known)}"
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            yield f"{place}: **{name} never receives anything; name the parameters you use{_choice(known)}"
        elif name not in known:
            hint = _nearest(name, known) or (f"; it offers {_list(known)}" if known else "; it offers none")
            yield f"{place}: unknown parameter {name!r}{hint}"
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            yield f"{place}: parameter {name!r} is keyword-only and never receives anything; remove the * before it"
        elif parameter.default is not inspect.Parameter.empty:
            yield f"{place}: parameter {name!r} has a default, which is never used; remove the default"


def _select_slips(cls: type, methods: list[_Method], *, needs_pair: bool) -> Iterator[str]:
    hooks = {method.hook for method in methods}
    misspelt = {hook for hook in hooks if difflib.get_close_matches(hook, SELECT_HOOKS, n=1)} - SELECT_HOOKS
    if misspelt or "select_single" in hooks:
        return  # said already, or there
    if "select_pair" not in hooks:
        yield f"{cls.__name__} implements neither select_single nor select_pair; add an @hookimpl select_single"
    elif not needs_pair:
        yield f"{cls.__name__} implements only select_pair, but the pool is regular; add an @hookimpl select_single"


def _choice(known: tuple[str, ...]) -> str:
    return f" of {', '.join(known)}" if known else ": it offers none"


def _nearest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)
