"""The flags of `router-core simulate`: what each takes, and what does not go together."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from router_core.contract.errors import StartupError
from router_core.engine_model.presets import PRESETS
from router_core.simulate.contender import YARDSTICKS
from router_core.simulate.synthetic import WORKLOADS

MOST_WORKERS = 4096
_COUNTS = (
    ("requests", 1, 100_000_000),
    ("seeds", 1, 1000),
    ("workers", 1, MOST_WORKERS),
    ("routers", 1, 256),
    ("block-tokens", 1, 1_000_000),
    ("jobs", 1, 1024),
    ("retries", 0, 100),
)
"""Flags that count something, with the least and the most they take."""


def add_simulate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    _add_trace(parser.add_argument_group("what is replayed"))
    _add_contenders(parser.add_argument_group("who takes part"))
    _add_fleet(parser.add_argument_group("the fleet"))
    _add_report(parser.add_argument_group("the report"))


def _add_trace(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("trace", nargs="?", type=Path, metavar="TRACE", help="trace in JSON lines, plain or gzip")
    add(
        "--workload",
        metavar="NAME[:{OPTION: VALUE, ...}]",
        help=f"a made-up trace instead: {', '.join(WORKLOADS)} (default: sessions)",
    )
    add(
        "--block-tokens",
        type=int,
        metavar="TOKENS",
        help="tokens in a block of the trace (default: as it says, or 512)",
    )
    add("--requests", type=int, metavar="COUNT", help="replay only the first so many starts")
    add("--rate", type=float, metavar="RATE", help="starts per second, of requests or sessions (default: the trace's)")
    add("--load", type=float, metavar="SHARE", help="the rate as a share of what saturates the fleet, such as 0.8")
    add("--think-cap", type=float, default=30.0, metavar="SECONDS", help="longest pause in a session (default: 30)")
    add(
        "--header",
        action="append",
        default=[],
        metavar="NAME=session|user",
        help="a header in which clients name session or user, for policies that read it "
        "(x-session-id, x-smg-routing-key and x-user-id are there)",
    )
    add(
        "--jitter",
        type=float,
        default=1.0,
        metavar="GAPS",
        help="how far seeds shift starts, in mean gaps (default: 1)",
    )


def _add_contenders(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--policy",
        action="append",
        default=[],
        metavar="[LABEL=][WRAPPER > ...]NAME[:{OPTION: VALUE, ...}][ + DECODE]",
        help="a policy, with what wraps it before it, and another one for decode after it; may be given several "
        f"times, also for the yardsticks {' and '.join(YARDSTICKS)} (default: all installed ones and the yardsticks)",
    )
    add(
        "--observer",
        action="append",
        default=[],
        metavar="NAME[:{OPTION: VALUE, ...}]",
        help="an observer beside each policy; may be given several times",
    )
    add("--seeds", type=int, default=3, metavar="COUNT", help="runs of each policy (default: 3)")
    add(
        "--app-dir",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="where a policy `module:Class` is looked up (default: .)",
    )


def _add_fleet(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--workers", type=int, metavar="COUNT", help="equal engines (default: 4)")
    add("--constants", choices=sorted(PRESETS), help="what they are (default: h100_8b)")
    add(
        "--cache-tokens", metavar="TOKENS", help="KV cache of each engine, such as 400k or 1.6M (default: the preset's)"
    )
    engine = "[COUNT*]PRESET[:{CONSTANT: VALUE, ...}]"
    add("--engine", action="append", default=[], metavar=engine, help="unlike engines; may be given several times")
    add("--prefill", action="append", default=[], metavar=engine, help="prefill engines; need --decode")
    add("--decode", action="append", default=[], metavar=engine, help="decode engines; need --prefill")
    add(
        "--transfer-ms",
        type=float,
        metavar="MS",
        help="time a KV cache takes from prefill to decode (default: 5)",
    )
    add(
        "--transfer-token-us",
        type=float,
        metavar="US",
        help="more time for each of its tokens (default: 5.2)",
    )
    add(
        "--fail",
        action="append",
        default=[],
        metavar="WORKER@SECONDS[+SECONDS]",
        help="a worker dies, and returns after",
    )
    add("--routers", type=int, default=1, metavar="COUNT", help="routers side by side (default: 1)")
    add("--split", choices=["any", "session"], help="what decides on the router (default: any)")
    add("--telemetry-interval", type=float, default=1.0, metavar="SECONDS", help="between two readings (default: 1)")
    add("--retries", type=int, default=0, metavar="COUNT", help="how often a failed request is sent again (default: 0)")


def _add_report(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--warm-up", type=float, default=0.1, metavar="SHARE", help="share of arrivals left out (default: 0.1)")
    add("--slo-ttft", type=float, default=2.0, metavar="SECONDS", help="time to first token to keep (default: 2)")
    add(
        "--slo-inter-token", type=float, default=0.1, metavar="SECONDS", help="mean time a token to keep (default: 0.1)"
    )
    add("--json", action="store_true", help="print JSON")
    add("--html", type=Path, metavar="FILE", help="also write a page with plots, which needs nothing else")
    add("--jobs", type=int, metavar="COUNT", help="processes at work (default: as many as there are processors)")


def check_arguments(parsed: argparse.Namespace) -> None:
    """Check what argparse does not: ranges, and flags that contradict each other.

    Raises:
        StartupError: With one sentence for each problem.
    """
    problems = []
    for flag, least, most in _COUNTS:
        value = getattr(parsed, flag.replace("-", "_"))
        if value is not None and not least <= value <= most:
            problems.append(
                f"--{flag}: {value:,} is {'too few' if value < least else 'too many'}; give {least} to {most:,}"
            )
    for flag in ("rate", "load", "telemetry-interval"):
        value = getattr(parsed, flag.replace("-", "_"))
        if value is not None and not 0 < value < math.inf:
            problems.append(f"--{flag}: {value:g} is no number above 0; give one")
    for flag in ("think-cap", "jitter", "transfer-ms", "transfer-token-us", "slo-ttft", "slo-inter-token"):
        value = getattr(parsed, flag.replace("-", "_"))
        if value is not None and not value >= 0:
            problems.append(f"--{flag}: {value:g} is negative; give 0 or more")
    if not 0 <= parsed.warm_up < 1:
        problems.append(f"--warm-up: {parsed.warm_up:g} is no share from 0 to below 1; give one such as 0.1")
    if parsed.html is not None and not parsed.html.parent.is_dir():
        problems.append(f"--html: {parsed.html.parent} is no folder; make it first")
    elif parsed.html is not None and parsed.html.is_dir():
        problems.append(f"--html: {parsed.html} is a folder; name a file")
    if parsed.rate is not None and parsed.load is not None:
        problems.append("--load: --rate is given too; give one of them")
    if parsed.trace is not None and parsed.workload is not None:
        problems.append("--workload: a trace is given too; give one of them")
    problems += _without_effect(parsed)
    if problems:
        raise StartupError(problems)


def _without_effect(parsed: argparse.Namespace) -> Iterator[str]:
    """Tell which flags are given that nothing would come of; they are None if they are not."""
    if not parsed.prefill and not parsed.decode:
        for flag in ("transfer-ms", "transfer-token-us"):
            if getattr(parsed, flag.replace("-", "_")) is not None:
                yield f"--{flag}: no KV cache travels without pairs; give --prefill and --decode, or leave it out"
    if parsed.split is not None and parsed.routers == 1:
        yield "--split: there is one router only; give --routers 2 or more, or leave it out"
    if parsed.constants is not None and (parsed.engine or parsed.prefill or parsed.decode):
        yield "--constants: the engines are given one by one, with theirs; give one or the other"
    if parsed.block_tokens is not None and parsed.trace is None:
        yield "--block-tokens: a made-up trace has blocks of its own; give a trace, or leave it out"
