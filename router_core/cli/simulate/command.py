"""`router-core simulate`: how policies would do, on a trace, before anything is deployed."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

from router_core.cli.progress import ProgressBar
from router_core.cli.simulate.grammar import read_amount, read_engines, read_failure, read_header, read_workload
from router_core.contract.errors import StartupError
from router_core.contract.worker import WorkerRole
from router_core.engine_model.presets import PRESETS
from router_core.plugin_host.discovery import installed_policies
from router_core.simulate.comparison import compare
from router_core.simulate.contender import YARDSTICKS, Contender
from router_core.simulate.fleet_plan import EnginePlan, FleetPlan
from router_core.simulate.plugin import Plugin
from router_core.simulate.report_html import html_report
from router_core.simulate.report_json import json_report
from router_core.simulate.report_text import text_report
from router_core.simulate.saturation import cached_saturation_rate
from router_core.simulate.scenario import Scenario
from router_core.simulate.summary import Slo
from router_core.simulate.synthetic import WORKLOADS
from router_core.simulate.trace import Trace
from router_core.simulate.trace_file import read_trace

FAULTY = 1

_MOST_WORKERS = 4096
_COUNTS = (
    ("requests", 1, 100_000_000),
    ("seeds", 1, 1000),
    ("workers", 1, _MOST_WORKERS),
    ("routers", 1, 256),
    ("block-tokens", 1, 1_000_000),
    ("jobs", 1, 1024),
    ("retries", 0, 100),
)
"""Flags that count something, with the least and the most they take."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument_group("what is replayed").add_argument
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

    add = parser.add_argument_group("who takes part").add_argument
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

    add = parser.add_argument_group("the fleet").add_argument
    add("--workers", type=int, metavar="COUNT", help="equal engines (default: 4)")
    add("--constants", choices=sorted(PRESETS), default="h100_8b", help="what they are (default: h100_8b)")
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
        default=5.0,
        metavar="MS",
        help="time a KV cache takes from prefill to decode (default: 5)",
    )
    add(
        "--transfer-token-us",
        type=float,
        default=5.2,
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
    add("--split", choices=["any", "session"], default="any", help="what decides on the router (default: any)")
    add("--telemetry-interval", type=float, default=1.0, metavar="SECONDS", help="between two readings (default: 1)")
    add("--retries", type=int, default=0, metavar="COUNT", help="how often a failed request is sent again (default: 0)")

    add = parser.add_argument_group("the report").add_argument
    add("--warm-up", type=float, default=0.1, metavar="SHARE", help="share of arrivals left out (default: 0.1)")
    add("--slo-ttft", type=float, default=2.0, metavar="SECONDS", help="time to first token to keep (default: 2)")
    add(
        "--slo-inter-token", type=float, default=0.1, metavar="SECONDS", help="mean time a token to keep (default: 0.1)"
    )
    add("--json", action="store_true", help="print JSON")
    add("--html", type=Path, metavar="FILE", help="also write a page with plots, which needs nothing else")
    add("--jobs", type=int, metavar="COUNT", help="processes at work (default: as many as there are processors)")


def run(parsed: argparse.Namespace) -> int:
    """Simulate and report.

    Returns:
        0; 1 when a policy broke the contract while it ran.

    Raises:
        StartupError: Something given cannot be used, and nothing was simulated; or the page cannot be written.
    """
    _check_numbers(parsed)
    contenders = _contenders(parsed)
    fleet = _fleet(parsed)
    for contender in contenders:  # before minutes are spent on others
        if not contender.is_yardstick:
            contender.build(has_pairs=fleet.has_pairs)
    scenario = Scenario(
        _trace(parsed),
        fleet,
        rate=parsed.rate,
        jitter=parsed.jitter,
        think_cap_s=parsed.think_cap,
        routers=parsed.routers,
        split=parsed.split,
        telemetry_s=parsed.telemetry_interval,
        retries=parsed.retries,
    )
    scenario = replace(scenario, headers={**scenario.headers, **dict(map(read_header, parsed.header))})
    if parsed.load is not None:
        scenario = replace(scenario, rate=parsed.load * _saturation(scenario))
    runs = len(contenders) * parsed.seeds
    with ProgressBar(f"{runs} run{'s' if runs > 1 else ''}") as progress:
        comparison = compare(
            scenario,
            contenders,
            seeds=parsed.seeds,
            slo=Slo(parsed.slo_ttft, parsed.slo_inter_token),
            warm_up=parsed.warm_up,
            jobs=parsed.jobs or min(os.cpu_count() or 1, runs),
            progress=progress,
        )
    print(json.dumps(json_report(comparison), indent=2) if parsed.json else text_report(comparison), flush=True)
    if parsed.html is not None:  # last: the figures are worth more than the page
        try:
            parsed.html.write_text(html_report(comparison), encoding="utf-8")
        except OSError as error:
            problem = f"--html {parsed.html}: cannot be written: {error.strerror}; name a file that can"
            raise StartupError([problem]) from error
    return FAULTY if any(summary.faults for summary in comparison.summaries) else 0


def _check_numbers(parsed: argparse.Namespace) -> None:
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
        if not value >= 0:
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
    if problems:
        raise StartupError(problems)


def _contenders(parsed: argparse.Namespace) -> list[Contender]:
    observers = tuple(
        Plugin.parse(text, where=f"--observer {text}", app_dir=parsed.app_dir) for text in parsed.observer
    )
    contenders = [replace(contender, observers=observers) for contender in _chosen(parsed)]
    labels = [contender.label for contender in contenders]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise StartupError(f"--policy {label}: given twice; tell them apart, LABEL={label}" for label in twice)
    return contenders


def _chosen(parsed: argparse.Namespace) -> list[Contender]:
    if parsed.policy:
        return [Contender.parse(text, app_dir=parsed.app_dir) for text in parsed.policy]
    usable = [plugin for plugin in installed_policies().plugins if not plugin.problems]
    names = {plugin.target: plugin.name for plugin in reversed(usable)}  # of several names for one class the first
    return [Contender(name) for name in (*sorted(names.values()), *YARDSTICKS)]


def _fleet(parsed: argparse.Namespace) -> FleetPlan:
    cache_tokens = None if parsed.cache_tokens is None else read_amount("--cache-tokens", parsed.cache_tokens)
    engines: list[EnginePlan] = []
    for flag, role in (("engine", WorkerRole.REGULAR), ("prefill", WorkerRole.PREFILL), ("decode", WorkerRole.DECODE)):
        for text in getattr(parsed, flag):
            engines.extend(read_engines(f"--{flag}", text, role, cache_tokens))
    if len(engines) > _MOST_WORKERS:
        raise StartupError(
            [f"--engine, --prefill, --decode: {len(engines):,} are too many; give up to {_MOST_WORKERS:,}"]
        )
    if engines and parsed.workers is not None:
        raise StartupError(["--workers: the engines are given one by one; give one or the other"])
    if not engines:
        constants = PRESETS[parsed.constants]
        if cache_tokens is not None:
            constants = replace(constants, cache_tokens=cache_tokens)
        engines = [EnginePlan(constants)] * (4 if parsed.workers is None else parsed.workers)
    try:
        return FleetPlan(
            tuple(engines),
            tuple(read_failure(text, len(engines)) for text in parsed.fail),
            transfer_s=parsed.transfer_ms * 1e-3,
            transfer_token_s=parsed.transfer_token_us * 1e-6,
        )
    except ValueError as error:
        raise StartupError([f"the fleet: {error}"]) from error


def _trace(parsed: argparse.Namespace) -> Trace:
    if parsed.trace is None:
        trace = read_workload(parsed.workload or "sessions")
    else:
        trace = read_trace(parsed.trace, block_tokens=parsed.block_tokens)
    return trace if parsed.requests is None else trace.first(parsed.requests)


def _saturation(scenario: Scenario) -> float:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "router-core"

    def tell(what: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[Kmeasuring saturation: {what}")
            sys.stderr.flush()

    rate = cached_saturation_rate(scenario, cache, progress=tell)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    return rate
