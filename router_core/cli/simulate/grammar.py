"""The little languages of the flags: engines, failures, workloads. Each mistake becomes one sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from router_core.cli.simulate.arguments import MOST_WORKERS
from router_core.contract.errors import StartupError
from router_core.contract.worker import WorkerRole
from router_core.engine_model.presets import PRESETS
from router_core.engine_model.timing import EngineConstants
from router_core.simulate.fleet_plan import EnginePlan, Failure
from router_core.simulate.option_text import split_options
from router_core.simulate.scenario import KeyField
from router_core.simulate.synthetic import synthetic
from router_core.simulate.trace import Trace

_ENGINE = re.compile(r"(?:(?P<count>\d{1,18})\s*[*x]\s*)?(?P<preset>\w+)")
_FAILURE = re.compile(r"(?P<worker>\d+)@(?P<at>\d+(?:\.\d+)?)(?:\+(?P<back>\d+(?:\.\d+)?))?")
_HEADER = re.compile(r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+)=(?P<key>session|user)")
_AMOUNT = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kKmM]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def read_engines(flag: str, text: str, role: WorkerRole, cache_tokens: int | None) -> tuple[EnginePlan, ...]:
    """Read `[COUNT*]PRESET[:{CONSTANT: VALUE, ...}]`, such as `2*l4_8b_fp8:{cache_tokens: 50000}`."""
    name, changes = _split(flag, text)
    match = _ENGINE.fullmatch(name)
    if match is None or not (count := int(match["count"] or 1)):
        raise StartupError([f"{flag} {text}: cannot be read; write [COUNT*]PRESET[:{{CONSTANT: VALUE, ...}}]"])
    if count > MOST_WORKERS:
        raise StartupError([f"{flag} {text}: {count:,} are too many; give up to {MOST_WORKERS:,}"])
    constants = PRESETS.get(match["preset"])
    if constants is None:
        raise StartupError([f"{flag} {text}: unknown preset {match['preset']!r}; give one of {', '.join(PRESETS)}"])
    if cache_tokens is not None:
        constants = replace(constants, cache_tokens=cache_tokens)
    return (EnginePlan(_changed(f"{flag} {text}", constants, changes), role),) * count


def read_failure(text: str, workers: int) -> Failure:
    """Read `WORKER@SECONDS[+SECONDS]`, such as `1@600+120`, in a fleet of so many workers."""
    match = _FAILURE.fullmatch(text)
    if match is None:
        raise StartupError([f"--fail {text}: cannot be read; write WORKER@SECONDS[+SECONDS], such as 1@600+120"])
    worker = int(match["worker"])
    if worker >= workers:
        raise StartupError([f"--fail {text}: there is no worker {worker}; give 0 to {workers - 1}"])
    return Failure(worker, float(match["at"]), float(match["back"]) if match["back"] else None)


def read_workload(text: str) -> Trace:
    """Read `NAME[:{OPTION: VALUE, ...}]`, such as `sessions:{turns: 4}`."""
    name, options = _split("--workload", text)
    return synthetic(name.replace("-", "_"), **options)


def read_header(text: str) -> tuple[str, KeyField]:
    """Read `NAME=session` or `NAME=user`."""
    match = _HEADER.fullmatch(text)
    if match is None:
        raise StartupError([f"--header {text}: cannot be read; write NAME=session or NAME=user, such as x-tenant=user"])
    return match["name"].lower(), "session" if match["key"] == "session" else "user"


def read_amount(flag: str, text: str) -> int:
    """Read a whole number that may end in k or M: `400k`, `1.6M`."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise StartupError([f"{flag} {text}: is no amount; give a number such as 400k or 1.6M"])
    return round(float(match["number"]) * _UNITS[match["unit"].lower()])


def _split(flag: str, text: str) -> tuple[str, Mapping[str, Any]]:  # Any: straight from the user
    try:
        return split_options(text)
    except ValueError as error:
        problem = f"{flag} {text}: the options: {error}; write NAME:{{OPTION: VALUE, ...}}, in quotes"
        raise StartupError([problem]) from error


def _changed(place: str, constants: EngineConstants, changes: Mapping[str, Any]) -> EngineConstants:
    known = {field.name: field.type for field in fields(EngineConstants)}
    values: dict[str, Any] = {}
    for name, given in changes.items():
        if name not in known:
            raise StartupError([f"{place}: unknown constant {name!r}; known are {', '.join(known)}"])
        is_whole = known[name] == "int"
        is_number = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < math.inf
        if not is_number or (is_whole and given != int(given)):
            kind = "whole number" if is_whole else "number"
            raise StartupError([f"{place}: {name}: {given!r} is no {kind} from 0 on; give one"])
        values[name] = int(given) if is_whole else given
    try:
        return replace(constants, **values)
    except ValueError as error:
        raise StartupError([f"{place}: {error}"]) from error
