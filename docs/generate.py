"""Writes the generated parts of the reference pages: what stands between `<!-- begin generated: NAME -->` and its end.

    python docs/generate.py            # bring the pages up to date
    python docs/generate.py --check    # exit 1 and name the pages that are not

Everything is read off the code: the config's schema, the policies' options, the parsers, the metrics, the routes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from router_core.cli.describe_policy import describe
from router_core.cli.launch.flags import Composes, Flag, Moot, Origin, PolicyOption, Refused, Sets, flags_of
from router_core.cli.launch.router_args import RouterArgs
from router_core.cli.main import _COMMANDS
from router_core.config import iter_fields
from router_core.config.live import is_live
from router_core.contract.request import Leg, OutcomeStatus, RequestOutcome
from router_core.contract.worker import Circuit
from router_core.control.app import create_control_app
from router_core.control.log_level import LogLevelHandlers
from router_core.engine_model.presets import PRESETS
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.membership.source_state import SourceState
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import WorkerRegistry
from router_core.fleet.telemetry.poller import Freshness
from router_core.observability.compat import ALIASES
from router_core.observability.failure_samplers import circuit_sampler, retry_sampler
from router_core.observability.gate_samplers import access_sampler, admission_sampler
from router_core.observability.observer import MetricsObserver
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import (
    membership_sampler,
    policy_sampler,
    telemetry_sampler,
    traffic_sampler,
    worker_sampler,
)
from router_core.observability.signals import SignalBoard, membership_check
from router_core.plugin_host.context import LivePoolContext
from router_core.plugin_host.decision_times import DecisionTimes
from router_core.plugin_host.discovery import installed_policies
from router_core.testing import conformance, engine_process, regressions
from router_core.testing.builders import make_request, make_worker
from router_core.traffic.paths import INFERENCE_PATHS

REFERENCE = Path(__file__).with_name("reference")
REGION = re.compile(r"(<!-- begin generated: ([a-z-]+) -->\n).*?(<!-- end generated -->\n)", re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with `--check` only say which are not up to date."""
    parser = argparse.ArgumentParser(description="Bring the generated parts of docs/reference up to date.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is not up to date")
    is_check = parser.parse_args(arguments).check
    stale = [page for page in sorted(REFERENCE.glob("*.md")) if regenerated(page) != page.read_text()]
    for page in stale:
        if not is_check:
            page.write_text(regenerated(page))
        print(f"{page.name}: {'is not up to date; run python docs/generate.py' if is_check else 'written'}")
    return 1 if is_check and stale else 0


def regenerated(page: Path) -> str:
    """Return a page as it should be."""
    return REGION.sub(lambda match: f"{match[1]}\n{REGIONS[match[2]]()}\n{match[3]}", page.read_text())


# --- config ---


def config() -> str:
    """Return one table for each section of the config."""
    sections: dict[str, list[str]] = {}
    for field in iter_fields():
        section = field.path.rpartition(".")[0]
        where = f"`{field.variable}`" + (f"<br>`{field.flag}`" if field.flag else "")
        default = "unset" if field.default is None else f"`{json.dumps(field.default)}`"
        what = f"{field.description}<br>Takes {field.expects}.{' *Live.*' if is_live(field.path) else ''}"
        sections.setdefault(section, []).append(row(f"`{field.path}`", what, default, where))
    parts = []
    for section, rows in sections.items():
        title = f"### `{section}`" if section else "### Top level"
        parts.append(f"{title}\n\n" + table(("setting", "what it does", "default", "environment, flag"), rows))
    return "\n".join(parts)


# --- policies ---


def policies() -> str:
    """Return a chapter for each policy of this repository."""
    parts = []
    for plugin in installed_policies().plugins:
        if not plugin.distribution.startswith("router-policy-") or plugin.name not in BUILT_IN:
            continue
        about = describe(plugin.name, None)
        readme = f"../../plugins/{plugin.distribution}/README.md"
        parts.append(
            f"## `{plugin.name}`\n\n{about['summary']}\n\n"
            f"Distribution [`{plugin.distribution}`]({readme}). "
            f"Hooks: {listed(about['hooks'])}. Needs: {listed(about['needs'])}.\n"
        )
        rows = [
            row(
                f"`{option['name']}`",
                option["description"],
                f"`{option['default']}`",
                "; ".join([f"`{option['type']}`", *option["constraints"]]),
            )
            for option in about["options"]
        ]
        parts.append(table(("option", "what it does", "default", "takes"), rows) if rows else "It has no options.\n")
    return "\n".join(parts)


BUILT_IN = (
    "cache_aware",
    "consistent_hash",
    "dynamo_cost",
    "least_loaded",
    "lmetric",
    "lpwl",
    "manual",
    "power_of_two",
    "predicted_latency",
    "prefix_hash",
    "random",
    "round_robin",
    "weighted",
)


# --- commands ---


def command(name: str) -> str:
    """Return the arguments of a sub-command."""
    parser = argparse.ArgumentParser(prog=f"router-core {name}")
    _COMMANDS[name].add_arguments(parser)
    return f"{_COMMANDS[name].summary}\n\n{arguments_of(parser)}"


def arguments_of(parser: argparse.ArgumentParser) -> str:
    """Return a table of what a parser takes, help itself left out."""
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        text = formatter._expand_help(action) if action.help else ""
        words = " ".join([*action.option_strings, *([formatter._format_args(action, action.dest.upper())])])
        rows.append(row(f"`{words.strip()}`", text[:1].upper() + text[1:]))
    return table(("argument", "what it does"), rows)


def presets() -> str:
    """Return the engines that can be simulated by name."""
    rows = [
        row(
            f"`{name}`",
            f"{constants.step_s * 1e3:g} ms",
            f"{constants.prefill_token_s * 1e6:g} us",
            f"{constants.prefill_pair_s * 1e9:g} ns",
            f"{constants.decode_sequence_s * 1e6:g} us",
            f"{constants.decode_context_token_s * 1e9:g} ns",
            f"{constants.step_token_budget:,}",
            f"{constants.cache_tokens:,}",
        )
        for name, constants in PRESETS.items()
    ]
    heads = (
        "preset",
        "`step_s`",
        "`prefill_token_s`",
        "`prefill_pair_s`",
        "`decode_sequence_s`",
        "`decode_context_token_s`",
        "`step_token_budget`",
        "`cache_tokens`",
    )
    return table(heads, rows)


def launch_flags() -> str:
    """Return each flag of `launch` with its default and what is done with it."""
    return _flags_from("sglang-router")


def vllm_flags() -> str:
    """Return each flag that vllm-router alone has, likewise."""
    return _flags_from("vllm-router")


def own_flags() -> str:
    """Return each flag of `launch` that neither has, likewise."""
    return _flags_from("router-core")


def _flags_from(origin: Origin) -> str:
    rows = [
        row(f"`{each.option}`", "" if each.default in (None, [], False) else f"`{each.default}`", _fate(each))
        for each in flags_of(RouterArgs)
        if each.origin == origin
    ]
    return table(("flag", "default", "what is done with it"), rows)


def _fate(each: Flag) -> str:
    match each.fate:
        case Sets(path=path, note=note):
            text = f"Sets `{path}`. {note}"
        case Composes(paths=paths, note=note):
            text = f"Sets {listed(paths)}. {note}"
        case PolicyOption(policies=policies):
            text = f"Option of {listed(policies)}."
        case Moot(reason=reason):
            text = f"No effect: {reason}."
        case Refused(remedy=remedy):
            text = f"Refused: {remedy}."
    return text.strip()


# --- metrics ---


def metrics() -> str:
    """Return every metric the router itself may expose."""
    rows = [
        row(f"`{name}`", metric.type, ", ".join(f"`{label}`" for label in labels) or "none", metric.documentation)
        for metric, name, labels in sorted(exposed(), key=lambda entry: entry[1])
    ]
    return table(("metric", "type", "labels", "what it means"), rows)


def full_registry(*compat: str) -> MetricsRegistry:
    """Return a registry in which one of everything has happened."""
    registry = MetricsRegistry(compat=compat)
    observer = MetricsObserver(MetricsObserver.Config())
    sink = registry.labelled({"pool": "default", "plugin": "metrics"})
    loop = asyncio.new_event_loop()
    observer.on_start(LivePoolContext("default", seed=0, scheduler=loop, sink=sink))
    loop.close()
    outcome = RequestOutcome(OutcomeStatus.SUCCESS, 200, 1.0, 0.5, 10, 5, 20, 1, Leg.SINGLE)
    request = make_request()
    request.explain("cache_hit", cached_share=0.5)
    observer.on_request_complete(make_worker(), request, outcome)
    logging.disable()
    sink.count("of_negative_value", -1, {})
    registry.count("reloads_total", 1, {"result": "done"})
    logging.disable(logging.NOTSET)
    registry.add_sampler(worker_sampler("default", lambda: [make_worker()]))
    registry.add_sampler(access_sampler(lambda: {"missing_key": 1}))
    registry.add_sampler(admission_sampler(_BusyAdmission()))
    registry.histogram("admission_wait_seconds", {})
    registry.add_sampler(telemetry_sampler("default", lambda: {"http://worker-0": Freshness(1.0, 0)}))
    registry.add_sampler(membership_sampler(lambda: [SourceState("file", True, 1.0, 0, 3, None)]))
    board = SignalBoard()
    board.add(membership_check(lambda: [SourceState("file", True, 1.0, 0, 3, None)]))
    board.look()
    registry.add_sampler(board.sample)
    registry.add_sampler(policy_sampler("default", _FaultyPolicy))
    registry.add_sampler(retry_sampler(_Retries()))
    registry.histogram("retry_backoff_seconds", {})
    registry.add_sampler(circuit_sampler(lambda: {"http://worker-0": {(Circuit.CLOSED, Circuit.OPEN): 1}}))
    registry.add_sampler(
        traffic_sampler(
            connections=lambda: 1,
            refusals=lambda: {400: 1},
            buffered_bytes=lambda: 5,
            buffers_full=lambda: 6,
            client_stalls=lambda: 1,
            handshake_failures=lambda: {"no_tls": 3},
            shortages=lambda: {"files": 4},
            unrouted=lambda: {"default": {"no_available_workers": 1}},
            proxied_unknown=lambda: 1,
        )
    )
    return registry


def exposed() -> Iterator[tuple[Metric, str, list[str]]]:
    """Yield each metric with its full name and labels."""
    for metric in full_registry().collect():
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        yield metric, metric.name + ("_total" if metric.type == "counter" else ""), labels


class _Retries:
    granted = {"lost": 1}  # noqa: RUF012  # nobody changes it
    refused = {"budget": 1}  # noqa: RUF012
    results = {"failed": 1}  # noqa: RUF012


class _FaultyPolicy:
    name = "my_policy"
    source = "in-house"
    plugins = ("my_policy",)
    faults = {("my_policy", "raised"): 1}  # noqa: RUF012  # nobody changes it
    is_quarantined = True
    decision_times = DecisionTimes()


class _BusyAdmission:
    is_needed = True
    running = waiting = 1
    results = {("team-a", "admitted"): 1}  # noqa: RUF012  # nobody changes it


def metrics_compat() -> str:
    """Return what each name of other gateways is here."""
    rows = [
        row(
            f"`{alias.name}`",
            f"`{alias.ours}`",
            ", ".join(f"`{name}`" for name in (*alias.labels, *alias.fixed)) or "none",
        )
        for aliases in ALIASES.values()
        for alias in aliases
    ]
    return table(("theirs", "ours", "labels"), rows)


# --- HTTP ---


def inference_paths() -> str:
    """Return the paths the policy routes."""
    return "".join(f"- `POST {path.decode()}`\n" for path in sorted(INFERENCE_PATHS))


def control_paths() -> list[str]:
    """Return the paths the router answers itself."""

    async def nothing(*_: object) -> tuple[bytes, str]:
        return b"", ""

    pool = WorkerPool()
    app = create_control_app(
        [pool],
        fetch_models=nothing,  # type: ignore[arg-type]
        render_metrics=nothing,
        is_draining=bool,
        registry=WorkerRegistry(pool, wall_clock=float),
        engines=EngineClient(),
        replace_policy=nothing,  # type: ignore[arg-type]
        log_level=LogLevelHandlers(str, print),
    )
    return [resource.canonical for resource in app.router.resources()]


# --- the conformance kit ---


def conformance_checks() -> str:
    """Return every check with its first sentence."""
    rows = []
    for name in (name for name in vars(conformance.PolicyConformance) if name.startswith("test_")):
        check = getattr(conformance, f"check_{name.removeprefix('test_')}")
        text = " ".join((check.__doc__ or "").partition("\n\n")[0].split())
        may = "yes" if check.__name__ in conformance.EXEMPTIBLE else "no"
        group = "field" if check.__module__ == regressions.__name__ else "contract"
        rows.append((group, row(f"`{check.__name__}`", text, may)))
    heads = ("check", "what it asks", "may be exempted")
    contract, field = (table(heads, [text for group, text in rows if group == each]) for each in ("contract", "field"))
    return f"### What every policy must do\n\n{contract}\n### What went wrong elsewhere\n\n{field}"


# --- Markdown ---


def table(heads: Iterable[str], rows: Iterable[str]) -> str:
    """Return a table."""
    heads = list(heads)
    return row(*heads) + row(*("---" for _ in heads)) + "".join(rows)


def row(*cells: str) -> str:
    """Return a row of a table; a bar inside a cell is escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def listed(words: Iterable[str]) -> str:
    """Return words as code, in a list."""
    return ", ".join(f"`{word}`" for word in words) or "none"


REGIONS: dict[str, Callable[[], str]] = {
    "config": config,
    "policies": policies,
    "cli-serve": lambda: command("serve"),
    "launch-flags": launch_flags,
    "launch-flags-vllm": vllm_flags,
    "launch-flags-own": own_flags,
    "cli-policies": lambda: command("policies"),
    "cli-demo": lambda: command("demo"),
    "cli-simulate": lambda: command("simulate"),
    "cli-trace": lambda: command("trace"),
    "engine-presets": presets,
    "cli-simulated-engine": lambda: arguments_of(engine_process._parser()),
    "metrics": metrics,
    "metrics-compat": metrics_compat,
    "inference-paths": inference_paths,
    "checks": conformance_checks,
}

if __name__ == "__main__":
    sys.exit(main())
