"""One plugin that takes part: what it is called, its options, and how instances of it are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from router_core.contract.errors import StartupError
from router_core.plugin_host.discovery import OBSERVER_GROUP, POLICY_GROUP, WRAPPER_GROUP, load_policy
from router_core.plugin_host.options import build_policy
from router_core.plugin_host.slips import PluginKind
from router_core.simulate.option_text import split_options

_GROUPS: Mapping[PluginKind, str] = MappingProxyType(
    {"policy": POLICY_GROUP, "wrapper": WRAPPER_GROUP, "observer": OBSERVER_GROUP}
)


@dataclass(frozen=True)
class Plugin:
    """One plugin with its options.

    Attributes:
        name: An installed plugin's name, or `module:Class`.
        options: Its options, as in the router's config.
        make: Makes an instance; None to find the plugin by its name. For tests of one that is not installed.
        app_dir: Where `module:Class` is looked up, None for `sys.path` as it is.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: straight from the user
    make: Callable[[], object] | None = None
    app_dir: Path | None = None

    def build(self, kind: PluginKind, where: str, *, needs_pair: bool = False) -> tuple[object, str]:
        """Return a new instance and where it comes from.

        Args:
            kind: What it is used as.
            where: What messages call its place.
            needs_pair: Whether it chooses prefill/decode pairs.

        Raises:
            StartupError: It is not installed, breaks the contract, or its options do not fit.
        """
        if self.make is not None:
            return self.make(), "in-house"
        loaded = load_policy(self.name, group=_GROUPS[kind], app_dir=self.app_dir)
        built = build_policy(loaded, self.options, where=where, kind=kind, needs_pair=needs_pair)
        return built, loaded.source

    @classmethod
    def parse(cls, text: str, *, where: str, app_dir: Path | None = None) -> Plugin:
        """Read `NAME[:{OPTION: VALUE, ...}]`, such as `cache_aware:{cache_threshold: 0.5}`.

        Args:
            text: What stands on the command line; the options are a YAML mapping.
            where: What messages call its place, such as `--policy cache_aware`.
            app_dir: Where `module:Class` is looked up.

        Raises:
            StartupError: It cannot be read.
        """
        try:
            name, options = split_options(text)
            if not name or any(letter in name for letter in "{} ="):
                raise ValueError("cannot be read")
        except ValueError as error:
            raise StartupError([f"{where}: {error}; write NAME[:{{OPTION: VALUE, ...}}], in quotes"]) from error
        return cls(name if ":" in name else name.replace("-", "_"), options, app_dir=app_dir)


def split_outside_options(text: str, separator: str) -> Iterator[str]:
    """Split at a character, but not within braces or quotes."""
    depth, quote, start = 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif depth and letter in "\"'":
            quote = letter
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
        elif letter == separator and not depth:
            yield text[start:at]
            start = at + 1
    yield text[start:]
