"""A policy that takes part in a simulation: its name, options and label, and how instances of it are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from router_core.contract.errors import StartupError
from router_core.plugin_host.discovery import load_policy
from router_core.plugin_host.options import build_policy

YARDSTICKS: Mapping[str, str] = {
    "oracle_greedy": "knows every engine's cache and queue and gives a request to whoever answers it first",
    "oracle_pooled": "one queue and one cache for all engines, as if they were one: about the best there can be",
}
"""Pseudo policies that no router could have, and what they do."""

_LABEL = re.compile(r"(?P<label>[\w.+-]+)=(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Contender:
    """One policy with its options.

    Attributes:
        name: An installed policy's name, `module:Class`, or a yardstick.
        options: Its options, as in the router's config.
        label: What reports call it.
        make: Makes an instance; None to find the policy by its name. For tests of a policy that is not installed.
        app_dir: Where `module:Class` is looked up, None for `sys.path` as it is.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: straight from the user
    label: str = ""
    make: Callable[[], object] | None = None
    app_dir: Path | None = None

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def is_yardstick(self) -> bool:
        """Whether it is no policy but a measure for policies."""
        return self.make is None and self.name in YARDSTICKS

    def build(self, *, needs_pair: bool = False) -> tuple[object, str]:
        """Return a new instance and where it comes from.

        Raises:
            StartupError: It is not installed, breaks the contract, or its options do not fit.
        """
        if self.make is not None:
            return self.make(), "in-house"
        loaded = load_policy(self.name, app_dir=self.app_dir)
        where = f"policy {self.label}"
        return build_policy(loaded, self.options, where=where, needs_pair=needs_pair), loaded.source

    @classmethod
    def parse(cls, text: str, *, app_dir: Path | None = None) -> Contender:
        """Read `[LABEL=]NAME[:{OPTION: VALUE, ...}]`, such as `tuned=cache_aware:{cache_threshold: 0.5}`.

        Args:
            text: What stands on the command line; the options are a YAML mapping.
            app_dir: Where `module:Class` is looked up.

        Raises:
            StartupError: It cannot be read.
        """
        label = ""
        if match := _LABEL.fullmatch(text):
            label, text = match["label"], match["rest"]
        name, brace, rest = text.partition(":{")
        options: object = {}
        if brace:
            try:
                options = yaml.safe_load("{" + rest)
            except yaml.YAMLError as error:
                raise StartupError([_unreadable(text)]) from error
        if not name or not isinstance(options, dict):
            raise StartupError([_unreadable(text)])
        name = name.strip().replace("-", "_") if ":" not in name else name.strip()
        if name in YARDSTICKS and options:
            raise StartupError([f"--policy {name}: a yardstick takes no options; remove them"])
        return cls(name, options, label or text, app_dir=app_dir)


def _unreadable(text: str) -> str:
    return f"--policy {text}: cannot be read; write [LABEL=]NAME[:{{OPTION: VALUE, ...}}], in quotes"
