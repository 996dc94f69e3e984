"""`router-core simulate`: how policies would do, on a trace, before anything is deployed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from router_core.cli.progress import ProgressBar
from router_core.cli.simulate.arguments import MOST_WORKERS, check_arguments
from router_core.cli.simulate.grammar import read_amount, read_engines, read_failure, read_header, read_workload
from router_core.contract.errors import StartupError
from router_core.contract.worker import WorkerRole
from router_core.engine_model.presets import PRESETS
from router_core.plugin_host.discovery import installed_policies
from router_core.simulate.comparison import compare
from router_core.simulate.contender import YARDSTICKS, Contender
from router_core.simulate.fleet_plan import EnginePlan, FleetPlan
from router_core.simulate.plugin import Plugin
from router_core.simulate.processes import RunFailedError
from router_core.simulate.report_html import html_report
from router_core.simulate.report_json import json_report
from router_core.simulate.report_text import text_report
from router_core.simulate.saturation import cached_saturation_rate
from router_core.simulate.scenario import Scenario
from router_core.simulate.summary import Slo
from router_core.simulate.trace import Trace
from router_core.simulate.trace_file import read_trace

FAULTY = 1


def run(parsed: argparse.Namespace) -> int:
    """Simulate and report.

    Returns:
        0; 1 when a policy broke the contract while it ran, or a run came to no end.

    Raises:
        StartupError: Something given cannot be used, and nothing was simulated; or the page cannot be written.
    """
    check_arguments(parsed)
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
        split=parsed.split or "any",
        telemetry_s=parsed.telemetry_interval,
        retries=parsed.retries,
    )
    scenario = replace(scenario, headers={**scenario.headers, **dict(map(read_header, parsed.header))})
    if parsed.load is not None:
        _warn_of_few_requests(scenario)
        scenario = replace(scenario, rate=parsed.load * _saturation(scenario))
    runs = len(contenders) * parsed.seeds
    try:
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
    except RunFailedError as error:
        print(f"router-core: error: {error}", file=sys.stderr)
        return FAULTY
    print(json.dumps(json_report(comparison), indent=2) if parsed.json else text_report(comparison), flush=True)
    if parsed.html is not None:  # last: the figures are worth more than the page
        try:
            parsed.html.write_text(html_report(comparison), encoding="utf-8")
        except OSError as error:
            problem = f"--html {parsed.html}: cannot be written: {error.strerror}; name a file that can"
            raise StartupError([problem]) from error
    return FAULTY if any(summary.faults for summary in comparison.summaries) else 0


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
    if len(engines) > MOST_WORKERS:
        raise StartupError(
            [f"--engine, --prefill, --decode: {len(engines):,} are too many; give up to {MOST_WORKERS:,}"]
        )
    if engines and parsed.workers is not None:
        raise StartupError(["--workers: the engines are given one by one; give one or the other"])
    if not engines:
        constants = PRESETS[parsed.constants or "h100_8b"]
        if cache_tokens is not None:
            constants = replace(constants, cache_tokens=cache_tokens)
        engines = [EnginePlan(constants)] * (4 if parsed.workers is None else parsed.workers)
    transfer: dict[str, float] = {}
    if parsed.transfer_ms is not None:
        transfer["transfer_s"] = parsed.transfer_ms * 1e-3
    if parsed.transfer_token_us is not None:
        transfer["transfer_token_s"] = parsed.transfer_token_us * 1e-6
    failures = tuple(read_failure(text, len(engines)) for text in parsed.fail)
    try:
        return FleetPlan(tuple(engines), failures, **transfer)
    except ValueError as error:
        raise StartupError([f"the fleet: {error}"]) from error


def _trace(parsed: argparse.Namespace) -> Trace:
    if parsed.trace is None:
        trace = read_workload(parsed.workload or "sessions")
    else:
        trace = read_trace(parsed.trace, block_tokens=parsed.block_tokens)
    return trace if parsed.requests is None else trace.first(parsed.requests)


def _warn_of_few_requests(scenario: Scenario) -> None:
    """Say on stderr when saturation, measured with all requests at once, would never see decode limit the fleet."""
    if scenario.trace.is_closed_loop:
        return  # its saturation is searched, at rates that leave most sessions out at any time
    slots = sum(engine.constants.max_running for engine in scenario.fleet.engines if engine.role != WorkerRole.PREFILL)
    requests = len(scenario.trace.requests)
    if requests < 2 * slots:
        print(
            f"router-core: warning: --load: {requests:,} requests are few for engines that run {slots:,} at once: "
            f"saturation and rate come out too high; take a trace of {2 * slots:,} or more, or give --rate",
            file=sys.stderr,
        )


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
