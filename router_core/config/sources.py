"""The three places settings are written in: a file, the environment, flags. Each becomes `Setting`s, none is judged."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from router_core.config.fields import ENVIRONMENT_PREFIX, FLAGS, iter_fields, variable_name
from router_core.contract.errors import StartupError

CONFIG_VARIABLE = "ROUTER_CORE_CONFIG"

ODD_YAML = (ValueError, LookupError, AttributeError, TypeError)
"""What PyYAML raises beside its own errors: for a date that is none (2024-13-01), `!!float ''`, `!!timestamp x`."""

_POLICY_OPTIONS = ("policy", "options")
_OPTIONS = (_POLICY_OPTIONS, ("pd", "options"))

# What Kubernetes and Docker put into a container for a service called router-core: not meant for us.
_SERVICE_LINK = re.compile(r"_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, where it belongs and where it was written.

    Attributes:
        path: Where it belongs: `("health", "interval_s")`.
        value: The value as it was written; for a flag or a variable, text.
        source: Where it was written: `flag --port`, `router.yaml`, `environment variable ROUTER_CORE_PORT`.
    """

    path: tuple[str, ...]
    value: Any  # Any: whatever the user wrote; the schema judges it
    source: str


def from_file(path: Path) -> list[Setting]:
    """Return what a YAML or TOML file sets; a key without a value (YAML's null) sets nothing, except in options.

    Raises:
        StartupError: If the file cannot be read, or is not a mapping in YAML or TOML.
    """
    try:
        return list(_leaves((), read_mapping(path), str(path)))
    except RecursionError as error:
        raise StartupError([f"{path}: is nested too deeply, or an alias stands inside its own anchor"]) from error


def from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[Setting]:
    """Yield what `ROUTER_CORE_*` variables set, an empty one nothing; unknown ones are added to `problems`.

    Variables that Kubernetes or Docker derive from a service named router-core are passed over.
    """
    known = {field.path for field in iter_fields()}
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith(ENVIRONMENT_PREFIX) or name == CONFIG_VARIABLE or not text.strip():
            continue
        if _SERVICE_ADDRESS.match(text) or _SERVICE_LINK.search(name[len(ENVIRONMENT_PREFIX) - 1 :]):
            continue
        source = f"environment variable {name}"
        path = tuple(name[len(ENVIRONMENT_PREFIX) :].lower().split("__"))
        if path[:2] in _OPTIONS and len(path) > 2 and all(path):
            yield Setting(path, parse_scalar(text), source)
        elif path in _OPTIONS:
            problems.append(f"{name}: names no option; write {name}__<OPTION>, one variable for each")
        elif path == ("policy",):
            if environ.get(f"{name}__NAME", text) != text:
                problems.append(f"{name}: contradicts {name}__NAME; set one of them")
            yield Setting(("policy", "name"), text, source)
        elif ".".join(path) in known:
            yield Setting(path, text, source)
        else:
            problems.append(f"{name}: unknown environment variable; {_variable_remedy(name)}")


def from_flags(flags: Mapping[str, Any], problems: list[str]) -> Iterator[Setting]:
    """Yield what the command line sets.

    Args:
        flags: By flag, with underscores: `{"worker_urls": [...], "policy_option": ["margin=4"]}`; only those given.
        problems: Where sentences about malformed `--policy-option`s go.

    Raises:
        KeyError: If a flag is none of `FLAGS`.
    """
    path_of = {flag[2:].replace("-", "_"): tuple(path.split(".")) for path, flag in FLAGS.items()}
    for name, value in flags.items():
        path, flag = path_of[name], "--" + name.replace("_", "-")
        if path != _POLICY_OPTIONS:
            yield Setting(path, value, f"flag {flag}")
            continue
        given: dict[str, str] = {}
        for pair in value:
            key, equals, text = pair.partition("=")
            if not equals or not key.strip():
                problems.append(
                    f"{flag} {_cut(pair)}: is not KEY=VALUE; write {flag} {_cut(key.strip()) or 'KEY'}=VALUE"
                )
            elif given.setdefault(key.strip(), text) != text:
                earlier = _cut(f"{key}={given[key.strip()]}")
                problems.append(f"{flag} {_cut(pair)}: contradicts {flag} {earlier}; give one of them")
            else:
                yield Setting((*path, key.strip()), parse_scalar(text), f"flag {flag}")


def parse_scalar(text: str) -> bool | int | float | str | None:
    """Return an option's value as YAML reads a plain scalar: `true`, `3`, `0.5`, `null`, else the text as it is.

    No text is no `null` here, as it would be in a file: who writes `margin=` has forgotten the value.
    """
    if not text:
        return text
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    if tag.rpartition(":")[2] not in ("bool", "int", "float", "null"):
        return text
    try:
        value: bool | int | float | None = yaml.safe_load(text)
    except ValueError:  # looks like a number to YAML and is none, such as 0b_
        return text
    return value


_RESOLVER = yaml.resolver.Resolver()


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _variable_remedy(name: str) -> str:
    names = [field.variable for field in iter_fields()]
    inside = [other for other in names if other.startswith(name + "__")]
    if inside:  # a section
        return f"set one of its parts, such as {inside[0]}"
    words = [other.removeprefix(ENVIRONMENT_PREFIX) for other in (*names, CONFIG_VARIABLE, variable_name("policy"))]
    near = difflib.get_close_matches(name.removeprefix(ENVIRONMENT_PREFIX), words, n=1)
    return f"did you mean {ENVIRONMENT_PREFIX}{near[0]}?" if near else "unset it"


def _leaves(path: tuple[str, ...], value: Any, source: str) -> Iterator[Setting]:
    if path[:2] in _OPTIONS and len(path) > 2:
        yield Setting(path, value, source)  # whatever it is, it is the plugin's
    elif path == ("policy",) and isinstance(value, str):
        yield Setting(("policy", "name"), value, source)
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner, source)
    elif (value is not None and value != {}) or not _is_known(path):
        yield Setting(path, value, source)


def _is_known(path: tuple[str, ...]) -> bool:
    dotted = ".".join(path)
    return not path or any(f"{field.path}.".startswith(f"{dotted}.") for field in iter_fields())


# --- reading a file ---


def read_mapping(path: Path, *, quotes: bool = True) -> Mapping[Any, Any]:
    """Return what a YAML or TOML file holds; an empty one holds nothing.

    Args:
        path: The file.
        quotes: Whether an error may quote what stands there; no for a file of secrets.

    Raises:
        StartupError: If it cannot be read, or is not a mapping in YAML or TOML.
    """
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".toml"):
        raise StartupError([f"{path}: a config file ends in .yaml, .yml or .toml; rename it"])
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise StartupError([f"{path}: there is no such config file; check the path (from {Path.cwd()})"]) from error
    except OSError as error:
        raise StartupError([f"{path}: cannot be read ({error.strerror}); give a readable file"]) from error
    except UnicodeDecodeError as error:
        raise StartupError([f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"]) from error
    try:
        content = tomllib.loads(text) if suffix == ".toml" else yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except tomllib.TOMLDecodeError as error:
        where = "" if quotes else "".join(re.findall(r" \(at [^()]*\)$", str(error)))
        cause = error if quotes else None
        raise StartupError([f"{path}: is not valid TOML: {_words(error, quotes=quotes)}{where}"]) from cause
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = _words(error.problem or error.context, quotes=quotes)
        raise StartupError([f"{path}{where}: {problem}"]) from (error if quotes else None)
    except (yaml.YAMLError, *ODD_YAML) as error:
        problem = _words(error, quotes=quotes)
        raise StartupError([f"{path}: is not valid YAML: {problem}"]) from (error if quotes else None)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StartupError([f"{path}: holds {_kind(content)}; write settings as `name: value`, one on each line"])
    return content


def _words(problem: object, *, quotes: bool) -> str:
    """Return what a parser complains of; on wish only as far as it does not quote the file."""
    text = str(problem)
    return text if quotes else re.split("['\"]", text)[0].strip() or "something does not fit"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML as `safe_load` reads it, but a key that stands twice is an error: which of the two was meant?"""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # Any: the stubs call a name a dict
        node = super().compose_mapping_node(anchor)  # before `<<` merges, which may well repeat a key
        _refuse_repeated_keys(key for key, _ in node.value)
        return node


def _refuse_repeated_keys(keys: Iterable[yaml.Node]) -> None:
    first: dict[str, yaml.Node] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            continue
        earlier = first.setdefault(key.value, key)
        if earlier is not key:
            line = earlier.start_mark.line + 1
            problem = f"a name stands twice, the first time in line {line}; keep one of them: {key.value!r}"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "a single value"
