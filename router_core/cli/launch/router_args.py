"""`RouterArgs`: every argument of sglang-router 0.3.2 with its default, and what this router does with it. Those that
vllm-router alone has are in `vllm_args.py`.

Field names, flags and defaults are that router's, so that launch scripts and training frameworks need to change an
import at most. What a field does here is said by its fate (`flags.py`); `settings.py` makes the router's config of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from router_core.cli.launch.flags import Composes, Moot, PolicyOption, Refused, Sets, flag, flags_of
from router_core.cli.launch.forms import control_plane_keys, decode_urls, key_value_pairs, policy_options, prefill_urls
from router_core.cli.launch.vllm_args import VllmRouterArgs

_PREFIX = "router"
_CACHE_AWARE = PolicyOption(("cache_aware",))
_MANUAL = PolicyOption(("manual",))
_KUBERNETES = Composes(("membership",), "An option of the membership source `kubernetes`.")
_PAIRS = Composes(("pd.prefill", "pd.decode"))
_NO_TOKENIZER = Refused("the router forwards text as it came and never tokenizes; leave it out")
_NO_HISTORY = Refused("the engine that made a response keeps it, the router has no database; leave it out")
_NO_JWT = Refused("the router checks API keys, not tokens; put a proxy that speaks OpenID Connect before it")


def _in_seconds(milliseconds: float) -> float:
    return milliseconds / 1000


@dataclass
class RouterArgs(VllmRouterArgs):
    """The arguments of `launch`, for use from Python.

    `add_cli_args` and `from_cli_args` are what frameworks call that put the router's flags among their own.
    """

    # --- workers ---
    worker_urls: list[str] = flag(
        [], Sets("worker_urls"), "Base URLs of the workers.", nargs="*", metavar="URL", is_prefixed=False
    )
    host: str = flag("0.0.0.0", Sets("host"), "Address to listen on.", is_prefixed=False)  # noqa: S104
    port: int = flag(30000, Sets("port"), "Port to listen on.", is_prefixed=False)
    mini_lb: bool = flag(
        False,
        Refused("that is a balancer for debugging; leave it out, pairs work without"),
        "Start the small balancer.",
    )
    pd_disaggregation: bool = flag(False, Sets("pd.enabled"), "Serve each request by a prefill and a decode worker.")
    prefill_urls: list[tuple[str, int | None]] = flag(
        [],
        _PAIRS,
        "A prefill worker and its bootstrap port, if it has one; repeat for each.",
        name="prefill",
        cli_default=None,
        action="append",
        nargs="+",
        metavar=("URL", "PORT|none"),
    )
    decode_urls: list[str] = flag(
        [],
        _PAIRS,
        "A decode worker; repeat for each.",
        name="decode",
        cli_default=None,
        action="append",
        nargs=1,
        metavar="URL",
    )
    worker_startup_timeout_secs: int = flag(
        1800,
        Moot("the router serves as soon as one worker does and never gives the others up"),
        "Seconds to wait for workers at the start.",
    )
    worker_startup_check_interval: int = flag(
        30, Moot("a worker that is not up is looked at each second"), "Seconds between looks at a worker that starts."
    )

    # --- policy ---
    policy: str = flag(
        "cache_aware",
        Composes(("policy.name",), "Any installed policy, or `module:Class`."),
        "The policy.",
        metavar="NAME",
    )
    prefill_policy: str | None = flag(
        None, Composes(("prefill_policy",)), "A policy for prefill workers alone.", metavar="NAME"
    )
    decode_policy: str | None = flag(
        None, Composes(("decode_policy",)), "A policy for decode workers alone.", metavar="NAME"
    )
    policy_options: Mapping[str, object] = flag(
        {},
        Composes(("policy.options",)),
        "An option of the policy; repeat for each.",
        name="policy-option",
        cli_default=None,
        action="append",
        metavar="KEY=VALUE",
        origin="router-core",
    )
    app_dir: str | None = flag(
        None,
        Sets("app_dir"),
        "Folder in which module:Class names are looked up.",
        metavar="FOLDER",
        origin="router-core",
    )
    cache_threshold: float = flag(0.3, _CACHE_AWARE, "Share of a prompt that must be known to follow it.")
    balance_abs_threshold: int = flag(
        64, _CACHE_AWARE, "Loads are uneven if they differ by more than this many requests, and"
    )
    balance_rel_threshold: float = flag(1.5, _CACHE_AWARE, "by more than this factor.")
    eviction_interval_secs: int = flag(60, _CACHE_AWARE, "Seconds between clearings of the prefix tree.")
    max_tree_size: int = flag(67108864, _CACHE_AWARE, "Characters the prefix tree may hold.")
    bucket_adjust_interval_secs: int = flag(
        5,
        Refused("the policy bucket is not there; leave it out"),
        "Seconds between two fits of buckets.",
    )
    max_idle_secs: int = flag(14400, _MANUAL, "Seconds after which an unused routing key is forgotten.")
    assignment_mode: str = flag(
        "random", _MANUAL, "How a new routing key finds its worker.", choices=["random", "min_load", "min_group"]
    )
    dp_aware: bool = flag(False, Sets("dp_aware"), "Choose among an engine's data-parallel ranks.")
    enable_igw: bool = flag(
        False, Moot("one router serves all models its workers have; workers may be added later"), "Serve many models."
    )

    # --- prefill/decode beyond sglang-router ---
    pd_protocol: str | None = flag(
        None, Sets("pd.protocol"), "Protocol between prefill and decode workers.", metavar="NAME", origin="router-core"
    )

    # --- limits ---
    max_payload_size: int = flag(536870912, Sets("limits.max_body_bytes"), "Largest request body in bytes.")
    request_timeout_secs: int = flag(1800, Sets("limits.request_timeout_s"), "Seconds a request may take in all.")
    shutdown_grace_period_secs: int = flag(
        180, Sets("limits.shutdown_grace_s"), "Seconds running requests have when the router stops."
    )
    max_concurrent_requests: int = flag(
        -1,
        Sets("admission.max_concurrent_requests", lambda count: None if count < 0 else count),
        "Requests at once; -1 for any number.",
    )
    queue_size: int = flag(100, Sets("admission.queue_size"), "Requests that may wait when there are too many.")
    queue_timeout_secs: int = flag(60, Sets("admission.queue_timeout_s"), "Seconds a request may wait.")
    rate_limit_tokens_per_second: int | None = flag(
        None, Sets("admission.requests_per_s"), "Requests admitted a second.", type=int
    )
    cors_allowed_origins: list[str] = flag(
        [],
        Sets("cors_allowed_origins", note="None is allowed when empty, where sglang-router allows all."),
        "Origins a browser may call from.",
        nargs="*",
        metavar="ORIGIN",
    )

    # --- retries, breaker, health ---
    retry_max_retries: int = flag(5, Sets("retries.max_attempts"), "Attempts in all.")
    retry_initial_backoff_ms: int = flag(
        50, Sets("retries.initial_backoff_s", _in_seconds), "Milliseconds before the second attempt."
    )
    retry_max_backoff_ms: int = flag(
        30000, Sets("retries.max_backoff_s", _in_seconds), "Most milliseconds between attempts."
    )
    retry_backoff_multiplier: float = flag(1.5, Sets("retries.multiplier"), "Growth of the pause between attempts.")
    retry_jitter_factor: float = flag(0.2, Sets("retries.jitter"), "Share by which a pause varies at random.")
    disable_retries: bool = flag(False, Composes(("retries.max_attempts",)), "Try once.")
    cb_failure_threshold: int = flag(10, Sets("breaker.failure_threshold"), "Failures that open a worker's breaker.")
    cb_success_threshold: int = flag(3, Sets("breaker.success_threshold"), "Successes that close it again.")
    cb_timeout_duration_secs: int = flag(60, Sets("breaker.open_s"), "Seconds before an open one is tried again.")
    cb_window_duration_secs: int = flag(
        120,
        Sets("breaker.window_s", note="Used here: failures count that lie in the window."),
        "Seconds a failure counts.",
    )
    disable_circuit_breaker: bool = flag(
        False, Sets("breaker.enabled", lambda is_off: not is_off), "Have no circuit breaker."
    )
    health_failure_threshold: int = flag(3, Sets("health.failure_threshold"), "Failed checks until a worker is out.")
    health_success_threshold: int = flag(2, Sets("health.success_threshold"), "Passed checks until it is in again.")
    health_check_timeout_secs: int = flag(5, Sets("health.timeout_s"), "Seconds a check may take.")
    health_check_interval_secs: int = flag(60, Sets("health.interval_s"), "Seconds between checks of a worker.")
    health_check_endpoint: str = flag("/health", Sets("health.endpoint"), "Path that is asked.", metavar="PATH")
    disable_health_check: bool = flag(False, Sets("health.enabled", lambda is_off: not is_off), "Check nobody.")

    # --- discovery ---
    service_discovery: bool = flag(False, _KUBERNETES, "Find workers among the pods of a Kubernetes cluster.")
    selector: dict[str, str] = flag({}, _KUBERNETES, "Labels of the workers' pods.", nargs="+", metavar="KEY=VALUE")
    service_discovery_port: int = flag(80, _KUBERNETES, "Port of the workers.")
    service_discovery_namespace: str | None = flag(None, _KUBERNETES, "Namespace to watch; all when not given.")
    prefill_selector: dict[str, str] = flag(
        {}, _KUBERNETES, "Labels of the prefill workers' pods.", nargs="+", metavar="KEY=VALUE"
    )
    decode_selector: dict[str, str] = flag(
        {}, _KUBERNETES, "Labels of the decode workers' pods.", nargs="+", metavar="KEY=VALUE"
    )
    bootstrap_port_annotation: str = field(default="sglang.ai/bootstrap-port")  # it has no flag

    # --- observability ---
    log_dir: str | None = flag(
        None, Refused("the router logs to standard error; redirect that"), "Folder for log files.", metavar="FOLDER"
    )
    log_level: str | None = flag(
        None,
        Sets("log_level", lambda level: "error" if level == "critical" else level, "`critical` counts as `error`."),
        "Least level of what is logged.",
        cli_default="info",
        choices=["debug", "info", "warn", "warning", "error", "critical"],
    )
    prometheus_port: int | None = flag(
        None, Sets("prometheus_port"), "Port of the metrics.", type=int, cli_default=29000
    )
    prometheus_host: str | None = flag(
        None,
        Composes(("prometheus_host",)),
        "Address of the metrics.",
        cli_default="0.0.0.0",  # noqa: S104
    )
    prometheus_duration_buckets: list[float] | None = flag(
        None,
        Refused("the buckets are those of the engines, so that the two can be compared; leave it out"),
        "Buckets of the durations.",
        nargs="+",
        type=float,
        metavar="SECONDS",
    )
    request_id_headers: list[str] | None = flag(
        None, Sets("request_id_headers"), "Headers that may hold a request's id.", nargs="*", metavar="HEADER"
    )
    enable_trace: bool = flag(False, Composes(("tracing.endpoint",)), "Send OpenTelemetry traces.")
    otlp_traces_endpoint: str = flag(
        "localhost:4317",
        Composes(("tracing.endpoint",), "Sent by HTTP, so the port 4317, which is for gRPC, is taken for 4318."),
        "Where traces are sent.",
        metavar="HOST:PORT",
    )

    # --- security ---
    api_key: str | None = flag(
        None,
        Composes(("auth.api_key", "worker_api_key")),
        "Key that clients must give, and that workers are given.",
    )
    control_plane_api_keys: list[tuple[str, str, str, str]] = flag(
        [],
        Composes(("auth.keys",), "Role `admin` has the scopes admin and inference, `user` inference."),
        "Further keys.",
        nargs="*",
        metavar="ID:NAME:ROLE:KEY",
    )
    control_plane_audit_enabled: bool = flag(
        False, Moot("changes of workers and policies are always logged"), "Log what administrators do."
    )
    jwt_issuer: str | None = flag(None, _NO_JWT, "Who issues tokens.", metavar="URL")
    jwt_audience: str | None = flag(None, _NO_JWT, "For whom tokens must be.")
    jwt_jwks_uri: str | None = flag(None, _NO_JWT, "Where the issuer's keys are.", metavar="URL")
    jwt_role_mapping: dict[str, str] = flag(
        {}, _NO_JWT, "Roles in tokens to roles here.", nargs="*", cli_default=[], metavar="ROLE=ROLE"
    )
    client_cert_path: str | None = flag(None, Sets("worker_tls.cert"), "Certificate shown to workers.", metavar="FILE")
    client_key_path: str | None = flag(None, Sets("worker_tls.key"), "Its private key.", metavar="FILE")
    ca_cert_paths: list[str] = flag(
        [], Sets("worker_tls.ca"), "Certificate authorities of workers.", nargs="*", metavar="FILE"
    )
    server_cert_path: str | None = flag(
        None, Sets("tls.cert"), "Certificate shown to clients.", name="tls-cert-path", metavar="FILE"
    )
    server_key_path: str | None = flag(None, Sets("tls.key"), "Its private key.", name="tls-key-path", metavar="FILE")

    # --- what engines do, not this router ---
    model_path: str | None = flag(None, _NO_TOKENIZER, "Model whose tokenizer is used.")
    tokenizer_path: str | None = flag(None, _NO_TOKENIZER, "The tokenizer.")
    chat_template: str | None = flag(None, _NO_TOKENIZER, "The chat template.")
    tokenizer_cache_enable_l0: bool = flag(False, _NO_TOKENIZER, "Remember whole tokenized strings.")
    tokenizer_cache_l0_max_entries: int = flag(10000, _NO_TOKENIZER, "How many.")
    tokenizer_cache_enable_l1: bool = flag(False, _NO_TOKENIZER, "Remember tokenized beginnings.")
    tokenizer_cache_l1_max_memory: int = flag(52428800, _NO_TOKENIZER, "How many bytes of them.")
    reasoning_parser: str | None = flag(
        None,
        Refused("give it to the engines: they parse, the router passes on what they say"),
        "Reasoning parser.",
    )
    tool_call_parser: str | None = flag(
        None,
        Refused("give it to the engines: they parse, the router passes on what they say"),
        "Tool-call parser.",
    )
    mcp_config_path: str | None = flag(
        None,
        Refused("the router calls no tools; let the client or the engine do that"),
        "Servers of tools.",
        metavar="FILE",
    )
    backend: str = flag(
        "sglang",
        Refused("the router stands before engines of your own; for a provider's API use a gateway for those"),
        "What the workers are.",
        choices=["sglang", "openai"],
    )
    history_backend: str = flag(
        "memory",
        _NO_HISTORY,
        "Where conversations are kept.",
        choices=["memory", "none", "oracle", "postgres", "redis"],
    )
    oracle_wallet_path: str | None = flag(None, _NO_HISTORY, "Oracle wallet.")
    oracle_tns_alias: str | None = flag(None, _NO_HISTORY, "Oracle alias.")
    oracle_connect_descriptor: str | None = flag(None, _NO_HISTORY, "Oracle connection.")
    oracle_username: str | None = flag(None, _NO_HISTORY, "Oracle user.")
    oracle_password: str | None = flag(None, _NO_HISTORY, "Oracle password.")
    oracle_pool_min: int = flag(1, _NO_HISTORY, "Fewest Oracle connections.")
    oracle_pool_max: int = flag(16, _NO_HISTORY, "Most Oracle connections.")
    oracle_pool_timeout_secs: int = flag(30, _NO_HISTORY, "Seconds to wait for one.")
    postgres_db_url: str | None = flag(None, _NO_HISTORY, "PostgreSQL database.")
    postgres_pool_max: int = flag(16, _NO_HISTORY, "Most PostgreSQL connections.")
    redis_url: str | None = flag(None, _NO_HISTORY, "Redis database.")
    redis_pool_max: int = flag(16, _NO_HISTORY, "Most Redis connections.")
    redis_retention_days: int = flag(30, _NO_HISTORY, "Days a conversation is kept.")

    @staticmethod
    def add_cli_args(
        parser: argparse.ArgumentParser, use_router_prefix: bool = False, exclude_host_port: bool = False
    ) -> None:
        """Add the flags to a parser.

        Args:
            parser: Any parser.
            use_router_prefix: Name them `--router-<flag>`, all but `--worker-urls`, `--host` and `--port`.
            exclude_host_port: Leave `--host` and `--port` out: the caller has its own.
        """
        group = parser.add_argument_group("router", "Arguments of the router")
        for each in flags_of(RouterArgs):
            if not (exclude_host_port and each.field in ("host", "port")):
                each.add_to(group, f"{_PREFIX}-" if use_router_prefix else "")

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace, use_router_prefix: bool = False) -> RouterArgs:
        """Return the arguments that a parser with these flags has read.

        Args:
            args: What the parser returned; what else is in it is passed over.
            use_router_prefix: Look for `router_<name>` first, then for the name alone, as `host` and `port` are.

        Raises:
            ValueError: If a value has not the form its flag asks for.
        """
        given = vars(args)
        prefix = f"{_PREFIX}_" if use_router_prefix else ""
        values: dict[str, Any] = {}  # Any: as argparse typed them
        for each in flags_of(cls):
            name = each.name.replace("-", "_")
            for key in (f"{prefix}{name}", name):
                if key in given:
                    values[each.field] = _in_form(each.field, given[key])
                    break
        return cls(**values)


_FORMS: Mapping[str, Callable[[Any], object]] = {
    "prefill_urls": prefill_urls,
    "decode_urls": decode_urls,
    "control_plane_api_keys": control_plane_keys,
    "selector": partial(key_value_pairs, "--selector"),
    "prefill_selector": partial(key_value_pairs, "--prefill-selector"),
    "decode_selector": partial(key_value_pairs, "--decode-selector"),
    "jwt_role_mapping": partial(key_value_pairs, "--jwt-role-mapping"),
    "policy_options": policy_options,
}


def _in_form(field_name: str, value: Any) -> object:  # Any: as argparse typed it
    form = _FORMS.get(field_name)
    return value if form is None else form(value)
