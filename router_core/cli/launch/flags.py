"""What a launch argument is: a dataclass field that knows its flag, and what the router does with it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING
from types import MappingProxyType
from typing import Any, Literal

_KEY = "launch"


@dataclasses.dataclass(frozen=True, slots=True)
class Sets:
    """The argument is a setting of ours.

    Attributes:
        path: The setting's path in the config, such as `limits.max_body_bytes`.
        convert: From the argument's value to the setting's.
        note: What differs, for the reference page.
    """

    path: str
    convert: Callable[[Any], object] | None = None  # Any: as argparse typed it
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyOption:
    """The argument is an option of policies, of the same name unless one is given.

    Attributes:
        policies: The policies that have it.
        name: The option's name; None takes the argument's.
    """

    policies: tuple[str, ...]
    name: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Composes:
    """Several arguments together make settings of ours; `settings.py` puts them together.

    Attributes:
        paths: The settings they make.
        note: What to know, for the reference page.
    """

    paths: tuple[str, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Moot:
    """Taken, and there is nothing to do: the router behaves as it asks in any case. Said in the log when given.

    Attributes:
        reason: Why.
    """

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Not honoured: any value but the default is an error.

    Attributes:
        remedy: Why, and what to use instead.
    """

    remedy: str


Origin = Literal["sglang-router", "vllm-router", "router-core"]
Fate = Sets | PolicyOption | Composes | Moot | Refused


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """One argument on the command line.

    Attributes:
        field: The name of its field in `RouterArgs`.
        name: The flag, without dashes and prefix.
        default: What it is when not given.
        fate: What the router does with it.
        help: What it does, in a sentence.
        form: How argparse takes it.
        origin: Whose flag it is; those that sglang-router and vllm-router share are the former's.
        is_prefixed: Whether it takes the prefix when there is one.
    """

    field: str
    name: str
    default: object
    fate: Fate
    help: str
    form: Mapping[str, Any]  # Any: what argparse takes
    origin: Origin
    is_prefixed: bool

    @property
    def option(self) -> str:
        """The flag as it is written."""
        return f"--{self.name}"

    def add_to(self, parser: argparse._ActionsContainer, prefix: str) -> None:
        """Add it to a parser or a group of one, as `--<prefix><name>`."""
        option = f"--{prefix if self.is_prefixed else ''}{self.name}"
        shown = "" if self.default in (None, [], False) else f" (default: {self.default})"
        default: dict[str, Any] = {} if self.form.get("action") == "store_true" else {"default": self.default}
        parser.add_argument(option, help=f"{self.help}{shown}".replace("%", "%%"), **default, **self.form)


def flag(
    default: Any,
    fate: Fate,
    help: str,
    *,
    name: str | None = None,
    type: Callable[[str], object] | None = None,
    cli_default: Any = MISSING,
    origin: Origin = "sglang-router",
    is_prefixed: bool = True,
    **form: Any,
) -> Any:  # Any: a dataclass field that stands for its value
    """Return a dataclass field that is also a flag.

    Args:
        default: The field's default.
        fate: What the router does with it.
        help: What it does, in a sentence.
        name: The flag, without dashes; None takes the field's name.
        type: What argparse makes of the text; None takes the default's type.
        cli_default: The flag's default where it differs from the field's.
        origin: Whose flag it is; those that sglang-router and vllm-router share are the former's.
        is_prefixed: Whether it takes the prefix when there is one.
        **form: What else argparse takes.
    """
    if default is False:
        form = {"action": "store_true", **form}
    elif "action" not in form:
        kind = type or (str if default is None or isinstance(default, list | dict) else default.__class__)
        form = {"type": kind, **form}
    parts = {
        "name": name,
        "default": default if cli_default is MISSING else cli_default,
        "fate": fate,
        "help": help,
        "form": MappingProxyType(form),
        "origin": origin,
        "is_prefixed": is_prefixed,
    }
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata={_KEY: parts})
    return dataclasses.field(default=default, metadata={_KEY: parts})


def flags_of(arguments: type) -> Iterator[Flag]:
    """Yield the flags of a dataclass in order, those of its bases last."""
    fields = [field for field in dataclasses.fields(arguments) if _KEY in field.metadata]
    for field in sorted(fields, key=lambda field: field.name not in vars(arguments)["__annotations__"]):
        parts = field.metadata[_KEY]
        name = parts["name"] or field.name.replace("_", "-")
        yield Flag(field=field.name, **{**parts, "name": name})


def default_of(arguments: type, name: str) -> object:
    """Return a field's default."""
    for field in dataclasses.fields(arguments):
        if field.name == name:
            return field.default_factory() if field.default_factory is not MISSING else field.default
    raise KeyError(name)
