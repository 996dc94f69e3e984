"""The flags of `router-core serve`, described by the settings they set; and what is said about a flag nobody knows."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from router_core.contract.errors import StartupError

_FORMS: dict[str, dict[str, Any]] = {  # Any: what argparse takes
    "--worker-urls": {"nargs": "+", "action": "extend", "metavar": "URL"},
    "--policy": {"metavar": "NAME"},
    "--policy-option": {"action": "append", "metavar": "KEY=VALUE"},
    "--dp-aware": {"action": "store_true"},
    "--prefill-policy": {"metavar": "NAME"},
    "--decode-policy": {"metavar": "NAME"},
    "--pd-disaggregation": {"action": "store_true"},
    "--pd-protocol": {"metavar": "NAME"},
    "--prefill": {"nargs": "+", "action": "append", "metavar": ("URL", "PORT")},
    "--decode": {"action": "append", "metavar": "URL"},
    "--request-id-headers": {"nargs": "+", "action": "extend", "metavar": "NAME"},
    "--app-dir": {"metavar": "FOLDER"},
}


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags. One that is not given leaves no trace, so that environment and file can have their say.

    Values stay text: the settings judge them, all together.
    """
    from router_core.config import iter_fields

    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in YAML or TOML (environment: ROUTER_CORE_CONFIG)"
    )
    for field in iter_fields():
        if field.flag is None:
            continue
        last_word = re.split(r"[._]", field.path)[-1].upper()
        form: dict[str, Any] = {"action": _Once} | _FORMS.get(field.flag, {"metavar": last_word})
        takes = f"{field.expects}; " if field.expects.startswith(("a whole number", "one of")) else ""
        default = "" if field.default in (None, [], {}, False) else f"default: {_plain(field.default)}; "
        text = f"{field.description.replace('`', '')} ({takes}{default}environment: {field.variable})"
        parser.add_argument(field.flag, help=text.replace("%", "%%"), **form)


class _Once(argparse.Action):
    """A flag with one value: given twice, nobody knows which of them was meant."""

    # Any: a flag's value, as argparse has it
    def __call__(self, _: object, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        first = getattr(namespace, self.dest, values)
        if first != values:
            raise StartupError([f"{option_string} {values}: contradicts {option_string} {first}; give one of them"])
        setattr(namespace, self.dest, values)


def unknown_arguments(unknown: Iterable[str], parser: argparse.ArgumentParser) -> list[str]:
    """Return a sentence for each argument that `parser` does not know, with the nearest flag that it does."""
    flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    unknown = list(unknown)
    strange = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    if not strange:
        return [f"{argument}: unexpected argument; see {parser.prog} --help" for argument in unknown]
    return [f"{flag}: unknown flag; {_remedy(flag, flags, parser)}" for flag in strange]


def _remedy(flag: str, flags: list[str], parser: argparse.ArgumentParser) -> str:
    setting = _setting_of_launch_flag(flag) if "--worker-urls" in flags else None
    if setting is not None:
        from router_core.config.fields import variable_name

        return f"router-core launch has it; here it is the setting {setting}, in a file or {variable_name(setting)}"
    near = difflib.get_close_matches(flag, flags, n=1)
    return f"did you mean {near[0]}?" if near else f"see {parser.prog} --help"


def _setting_of_launch_flag(flag: str) -> str | None:
    """Return the setting that a flag of sglang-router's makes, None if it makes none of its own."""
    from router_core.cli.launch.flags import Sets, flags_of
    from router_core.cli.launch.router_args import RouterArgs

    fates = {each.option: each.fate for each in flags_of(RouterArgs)}
    fate = fates.get(flag)
    return fate.path if isinstance(fate, Sets) else None


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
