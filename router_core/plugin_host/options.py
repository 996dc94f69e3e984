"""A plugin's options: validated by its nested `Config`, described for people, turned into an instance."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from router_core.contract.errors import PolicyContractError, PolicyLoadError, StartupError
from router_core.contract.membership import MembershipSource
from router_core.contract.policy import PolicyConfig
from router_core.plugin_host.discovery import LoadedPlugin
from router_core.plugin_host.faults import describe
from router_core.plugin_host.slips import PluginKind, find_config_slips, find_slips

_COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_NAMED = ("multiple_of", "min_length", "max_length", "pattern")


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One option of a plugin, for listings and documentation.

    Attributes:
        name: As it stands in the config.
        type: As its author wrote it.
        default: In JSON, or `required`.
        description: One line, may be empty.
        constraints: Such as `>= 0`.
    """

    name: str
    type: str
    default: str
    description: str
    constraints: tuple[str, ...]


def build_policy(
    loaded: LoadedPlugin,
    options: Mapping[str, Any],  # Any: straight from the config file
    *,
    where: str = "policy",
    kind: PluginKind = "policy",
    needs_pair: bool = False,
) -> object:
    """Validate a plugin's options and return an instance of its class.

    Args:
        loaded: The class and where it came from.
        options: As they stand in the config.
        where: The plugin's place in the config, such as `pools[0].policy`.
        kind: What it is used as.
        needs_pair: Whether the pool places prefill/decode pairs.

    Raises:
        PolicyContractError: The class breaks the hook contract; every slip is listed.
        StartupError: The options do not fit; every error is listed, with its path in the config.
        PolicyLoadError: The constructor (or a validator of the plugin's) raises.
    """
    plugin = f"{kind} {loaded.name!r} of {loaded.source}"
    if slips := find_slips(loaded.cls, kind=kind, needs_pair=needs_pair):
        raise PolicyContractError([f"{plugin}: {slip}" for slip in slips])
    return _build(loaded.cls, options, plugin, where)


def build_source(loaded: LoadedPlugin, options: Mapping[str, Any], *, where: str) -> MembershipSource:
    """Validate a membership source's options and return an instance of its class.

    Args:
        loaded: The class and where it came from.
        options: As they stand in the config.
        where: The source's place in the config, such as `membership[0]`.

    Raises:
        PolicyContractError: The class has no `async def run(self, report)`.
        StartupError: The options do not fit; every error is listed, with its path in the config.
        PolicyLoadError: The constructor (or a validator of the source's) raises.
    """
    plugin = f"membership source {loaded.name!r} of {loaded.source}"
    if not inspect.iscoroutinefunction(getattr(loaded.cls, "run", None)):
        raise PolicyContractError([f"{plugin}: {loaded.cls.__name__} lacks `async def run(self, report)`; write it"])
    source: Any = _build(loaded.cls, options, plugin, where)  # Any: checked just now, as far as can be
    return cast("MembershipSource", source)


def build_protocol(
    loaded: LoadedPlugin,
    options: Mapping[str, Any],  # Any: straight from the config file
    *,
    where: str,
) -> object:
    """Validate the options of a plugin that has no hooks and return an instance of its class; raises as above."""
    plugin = f"protocol {loaded.name!r} of {loaded.source}"
    if slips := find_config_slips(loaded.cls):
        raise PolicyContractError([f"{plugin}: {slip}" for slip in slips])
    return _build(loaded.cls, options, plugin, where)


def _build(cls: type, options: Mapping[str, Any], plugin: str, where: str) -> object:
    model = _config_of(cls)
    if model is None:
        if options:
            raise StartupError([f"{where}.options.{name}: takes no options; remove it ({plugin})" for name in options])
        return _call(cls, (), plugin, where)
    try:
        config = model.model_validate(dict(options))
    except ValidationError as error:
        sentences = [f"{where}.options{sentence} ({plugin})" for sentence in _sentences(error, model)]
        raise StartupError(sentences) from error
    except Exception as error:
        raise PolicyLoadError(
            [f"{where}.options: cannot be checked, the plugin raised {describe(error)} ({plugin})"]
        ) from error
    return _call(cls, (config,), plugin, where)


def describe_options(cls: type) -> tuple[OptionInfo, ...]:
    """Return a plugin's options, its own first, in the order their author wrote them; empty when it takes none."""
    model = _config_of(cls)
    if model is None:
        return ()
    written = dict.fromkeys(name for cls in model.__mro__ for name in inspect.get_annotations(cls))
    fields = model.model_fields
    return tuple(_describe(name, fields[name]) for name in written if name in fields)


def _config_of(cls: type) -> type[PolicyConfig] | None:
    config = getattr(cls, "Config", None)
    return config if isinstance(config, type) and issubclass(config, PolicyConfig) else None


def _call(cls: type, arguments: tuple[PolicyConfig, ...], plugin: str, where: str) -> object:
    try:
        built: object = cls(*arguments)
    except Exception as error:
        raise PolicyLoadError([f"{where}: the constructor raised {describe(error)} ({plugin})"]) from error
    return built


def _sentences(error: ValidationError, model: type[PolicyConfig]) -> Iterator[str]:
    known = [field.alias or name for name, field in model.model_fields.items()]
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
        # 1. No such option.
        if problem["type"] == "extra_forbidden":
            choices = known if len(location) == 1 else []
            yield f"{path}: unknown option{_hint(str(location[-1]), choices)}"
        # 2. One is missing.
        elif problem["type"] == "missing":
            field = model.model_fields.get(str(location[0]))
            description = _one_line(field.description) if field is not None and len(location) == 1 else ""
            yield f"{path}: required option is missing; set it" + (f": {description}" if description else "")
        # 3. A validator of the plugin's own has the word.
        elif problem["type"] in ("value_error", "assertion_error"):
            yield f"{path}: {problem['msg'].partition(', ')[2] or problem['msg']}"
        # 4. The value does not fit.
        else:
            message = problem["msg"][:1].lower() + problem["msg"][1:]
            yield f"{path}: {message}, not {_shortened(problem['input'])}"


def _hint(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    if known:
        return f"; known options are {', '.join(known)}"
    return "; remove it"


def _describe(name: str, field: FieldInfo) -> OptionInfo:
    return OptionInfo(
        name=field.alias or name,
        type=_type_name(field.annotation),
        default="required" if field.is_required() else _default(field),
        description=_one_line(field.description),
        constraints=tuple(_constraints(field)),
    )


def _type_name(annotation: Any) -> str:  # Any: whatever the author wrote
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if isinstance(origin, type):
        inside = ("..." if argument is Ellipsis else _type_name(argument) for argument in arguments)
        return f"{origin.__name__}[{', '.join(inside)}]"
    if annotation is NoneType:
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(field: FieldInfo) -> str:
    if field.default_factory is None:
        return json.dumps(field.default, default=str)
    if field.default_factory_takes_validated_data:
        return "computed from other options"
    return json.dumps(field.get_default(call_default_factory=True), default=str)


def _constraints(field: FieldInfo) -> Iterator[str]:
    for limit in (*field.metadata, *_limits_within(field.annotation)):
        for attribute, sign in _COMPARISONS.items():
            if (bound := getattr(limit, attribute, None)) is not None:
                yield f"{sign} {bound}"
        for attribute in _NAMED:
            if (bound := getattr(limit, attribute, None)) is not None:
                yield f"{attribute.replace('_', ' ')} {bound}"


def _limits_within(annotation: Any) -> Iterator[Any]:  # Any: whatever the author wrote
    """Return the limits of an optional value, such as `Annotated[int, Field(ge=0)] | None`."""
    if get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            for extra in get_args(choice)[1:] if get_origin(choice) is Annotated else ():
                yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _shortened(value: object) -> str:
    text = "null, an empty value" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
