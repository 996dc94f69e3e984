"""`router-core trace`: look at traces, convert other people's, make small ones up."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from router_core.cli.simulate.grammar import read_workload
from router_core.contract.errors import StartupError
from router_core.simulate.convert import READERS, regroup
from router_core.simulate.statistics import describe, statistics
from router_core.simulate.synthetic import WORKLOADS
from router_core.simulate.trace import Trace
from router_core.simulate.trace_file import read_trace, write_trace

ACTIONS = ("inspect", "convert", "generate")
_ACTIONS_OF = (
    ("output", "--output", ("convert", "generate")),
    ("format", "--from", ("convert",)),
    ("block_tokens", "--block-tokens", ("inspect", "convert")),
    ("tick", "--tick", ("convert",)),
    ("seed", "--seed", ("convert",)),
    ("json", "--json", ("inspect",)),
)
"""Flags that not every action heeds, with those that do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("action", choices=ACTIONS, metavar="ACTION", help=f"what to do: {', '.join(ACTIONS)}")
    add(
        "source",
        nargs="+",
        metavar="SOURCE",
        help=f"inspect, convert: files; generate: NAME[:{{OPTION: VALUE, ...}}] of a workload, {', '.join(WORKLOADS)}",
    )
    add("--output", "-o", type=Path, metavar="FILE", help="convert, generate: where to write; .gz compresses")
    add(
        "--from",
        dest="format",
        choices=list(READERS),
        help="convert: the format (default: mooncake)",
    )
    add("--block-tokens", type=int, metavar="TOKENS", help="convert: larger blocks; inspect: the size, if not told")
    add("--requests", type=int, metavar="COUNT", help="only the first so many starts")
    add("--tick", type=float, metavar="SECONDS", help="convert mooncake: spread starts over such ticks")
    add("--seed", type=int, help="convert: of what is made up (default: 0)")
    add("--json", action="store_true", help="inspect: print JSON")


def run(parsed: argparse.Namespace) -> int:
    """Do it.

    Returns:
        0.

    Raises:
        StartupError: Something given cannot be used.
    """
    _check(parsed)
    if parsed.action == "inspect":
        traces = [_cut(read_trace(Path(source), block_tokens=parsed.block_tokens), parsed) for source in parsed.source]
        if parsed.json:
            print(json.dumps([statistics(trace) for trace in traces], indent=2))
        else:
            print("\n\n".join(describe(trace) for trace in traces))
        return 0
    if parsed.action == "generate":
        trace = read_workload(parsed.source[0])
    else:
        read = READERS[parsed.format or "mooncake"]
        trace = read([Path(source) for source in parsed.source], seed=parsed.seed or 0, tick_s=parsed.tick or 0.0)
        if parsed.block_tokens is not None:
            trace = regroup(trace, parsed.block_tokens)
    trace = _cut(trace, parsed)
    try:
        write_trace(trace, parsed.output)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}; name a file that can, in a folder that is there"
        raise StartupError([f"--output {parsed.output}: {problem}"]) from error
    print(describe(trace))
    return 0


def _cut(trace: Trace, parsed: argparse.Namespace) -> Trace:
    return trace if parsed.requests is None else trace.first(parsed.requests)


def _check(parsed: argparse.Namespace) -> None:
    problems = []
    for flag in ("block_tokens", "requests"):
        value = getattr(parsed, flag)
        if value is not None and value < 1:
            problems.append(f"--{flag.replace('_', '-')}: {value} is too few; give at least 1")
    for name, flag, actions in _ACTIONS_OF:
        if getattr(parsed, name) not in (None, False) and parsed.action not in actions:
            problems.append(f"{flag}: {parsed.action} does not heed it, only {' and '.join(actions)}; leave it out")
    if parsed.tick is not None and parsed.format not in (None, "mooncake"):
        problems.append(f"--tick: --from {parsed.format} does not heed it, only mooncake; leave it out")
    if parsed.tick is not None and not parsed.tick >= 0:
        problems.append(f"--tick: {parsed.tick:g} is negative; give 0 or more")
    if parsed.action != "inspect" and parsed.output is None:
        problems.append(f"--output: {parsed.action} needs a file to write; give one such as trace.jsonl.gz")
    if parsed.action == "generate" and len(parsed.source) > 1:
        problems.append("generate: takes one workload; make the others one by one")
    if problems:
        raise StartupError(problems)
