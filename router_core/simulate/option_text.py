"""Options as they are written on a command line: `NAME:{OPTION: VALUE, ...}`, where the braces are YAML."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

_FLOAT_TAG = "tag:yaml.org,2002:float"


def split_options(text: str) -> tuple[str, Mapping[str, Any]]:  # Any: straight from the user
    """Split `NAME:{OPTION: VALUE, ...}` into the name and the options, none if there are no braces.

    Numbers such as `3e-9` are numbers, as in YAML 1.2.

    Raises:
        ValueError: The options cannot be read; says why.
    """
    name, brace, rest = text.partition(":{")
    if not brace:
        return name.strip(), {}
    try:
        options = yaml.load("{" + rest, _OptionLoader)  # noqa: S506 - a SafeLoader
    except _TwiceError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError("cannot be read") from error
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ValueError("cannot be read")
    return name.strip(), options


class _TwiceError(ValueError):
    """Which of the two was meant?"""


class _OptionLoader(yaml.SafeLoader):
    """As `safe_load`, but with floats as in YAML 1.2, and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise _TwiceError(f"{name} stands twice")
        return super().construct_mapping(node, deep)


_OptionLoader.add_implicit_resolver(
    _FLOAT_TAG, re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)
