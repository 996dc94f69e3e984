"""From launch arguments to the router's config: what each argument's fate says, done."""

from __future__ import annotations

from collections.abc import Iterator

from router_core.cli.launch.absent_policies import why_absent
from router_core.cli.launch.flags import Composes, Flag, Moot, PolicyOption, Refused, Sets, default_of, flags_of
from router_core.cli.launch.router_args import RouterArgs
from router_core.config import RouterConfig, Setting, config_of
from router_core.contract.errors import StartupError

_COLLECTOR_PORTS = (":4317", ":4318")
"""Where collectors listen for OTLP over gRPC, which sglang-router speaks, and over HTTP, which we do."""

_ANNOTATION = "sglang.ai/bootstrap-port"
_VLLM_ANNOTATION = "vllm.ai/bootstrap-port"
"""Where vllm-router looks for a pod's bootstrap port."""

_OPEN_PATHS = ("/v1/models", "/get_model_info", "/get_server_info", "/health_generate", "/engine_metrics")
"""What sglang-router answers without a key, beside the probes: Kubernetes and Prometheus ask there."""

_KUBERNETES = {
    "selector": "selector",
    "prefill_selector": "prefill_selector",
    "decode_selector": "decode_selector",
    "service_discovery_port": "port",
    "service_discovery_namespace": "namespace",
}


def config_from(arguments: RouterArgs) -> RouterConfig:
    """Return the config that launch arguments mean.

    Unlike `serve` it may name no worker at all: workers may be added while the router runs.

    Raises:
        StartupError: With one sentence for each argument that is not honoured, or whose value does not fit.
    """
    problems = list(_problems(arguments))
    try:
        config = config_of(_settings(arguments))
    except StartupError as error:
        problems += error.problems
    if problems:
        raise StartupError(problems)
    return config


def notes_on(arguments: RouterArgs) -> Iterator[str]:
    """Yield a sentence for each argument given that has nothing to do here."""
    for each in flags_of(RouterArgs):
        if isinstance(each.fate, Moot) and _is_given(arguments, each):
            yield f"{each.option} changes nothing: {each.fate.reason}"


def _problems(arguments: RouterArgs) -> Iterator[str]:
    policies = {arguments.policy, arguments.prefill_policy, arguments.decode_policy}
    for each in flags_of(RouterArgs):
        if not _is_given(arguments, each):
            continue
        if isinstance(each.fate, Refused):
            yield f"{each.option}: is not honoured: {each.fate.remedy}"
        elif isinstance(each.fate, PolicyOption) and policies.isdisjoint(each.fate.policies):
            owners = " or ".join(each.fate.policies)
            yield f"{each.option}: is an option of {owners}, and the policy is {arguments.policy}; leave it out"
        elif each.field in _KUBERNETES and not arguments.service_discovery:
            yield f"{each.option}: is for Kubernetes; add --service-discovery, or leave it out"
        elif each.field == "otlp_traces_endpoint" and not arguments.enable_trace:
            yield f"{each.option}: is for traces; add --enable-trace, or leave it out"
        elif each.field == "kv_connector" and arguments.kv_connector == "moriio":
            yield f"{each.option} moriio: is not there; give the engines one of nixl, mooncake and p2p, and name it"
        elif each.field == "kv_connector" and not _is_for_vllm_pairs(arguments):
            yield f"{each.option}: is for pairs of vLLM workers; add --vllm-pd-disaggregation, or leave it out"
    for option in ("policy", "prefill_policy", "decode_policy"):
        if (reason := why_absent(getattr(arguments, option) or "")) is not None:
            yield f"--{option.replace('_', '-')}: {reason}"


def _settings(arguments: RouterArgs) -> Iterator[Setting]:
    for each in flags_of(RouterArgs):
        value = getattr(arguments, each.field)
        if isinstance(each.fate, Sets) and value is not None:
            value = each.fate.convert(value) if each.fate.convert else value
            yield _setting(each.fate.path, value, each)
        elif isinstance(each.fate, Composes):
            yield from _composed(each, arguments)
    yield Setting(("forward_headers",), "sglang", "launch")
    yield Setting(("unknown_models",), "pass", "launch")  # as there: clients of SGLang's often say `default`
    yield Setting(("auth", "open_paths"), _OPEN_PATHS, "launch")
    yield Setting(("error_code_header",), "x-smg-error-code", "launch")
    yield Setting(("metrics_compat",), ("smg", "vllm_router"), "launch")  # dashboards go on, whichever was there before


def _composed(each: Flag, arguments: RouterArgs) -> Iterator[Setting]:
    """Yield what an argument makes together with others; each group is made where its first member stands."""
    match each.field:
        case "prefill_urls" | "decode_urls":
            path = "pd.prefill" if each.field == "prefill_urls" else "pd.decode"
            if value := getattr(arguments, each.field):
                yield _setting(path, [list(item) if isinstance(item, tuple) else item for item in value], each)
        case "policy":
            yield _setting("policy.name", arguments.policy, each)
            for name, value in _options_of(arguments.policy, arguments).items():
                yield _setting(f"policy.options.{name}", value, each)
        case "policy_options":
            for name, value in arguments.policy_options.items():
                yield _setting(f"policy.options.{name}", value, each)
        case "prefill_policy" | "decode_policy":
            policy = getattr(arguments, each.field)
            if policy is not None:
                yield _setting(each.field, {"name": policy, "options": _options_of(policy, arguments)}, each)
        case "vllm_pd_disaggregation" if arguments.vllm_pd_disaggregation:
            yield _setting("pd.enabled", True, each)
            yield _setting("pd.protocol", "vllm", each)
        case "kv_connector" if _is_for_vllm_pairs(arguments):
            yield _setting("pd.options.connector", arguments.kv_connector, each)
        case "intra_node_data_parallel_size" if arguments.intra_node_data_parallel_size != 1:
            yield _setting("dp_aware", True, each)
            yield _setting("dp_size", arguments.intra_node_data_parallel_size, each)
        case "disable_retries" if arguments.disable_retries:
            yield _setting("retries.max_attempts", 1, each)
        case "prometheus_host" if arguments.prometheus_port is not None and arguments.prometheus_host is not None:
            yield _setting("prometheus_host", arguments.prometheus_host, each)
        case "service_discovery" if arguments.service_discovery:
            options = {option: getattr(arguments, name) for name, option in _KUBERNETES.items()}
            is_vllm = arguments.vllm_pd_disaggregation and arguments.bootstrap_port_annotation == _ANNOTATION
            options["bootstrap_port_annotation"] = _VLLM_ANNOTATION if is_vllm else arguments.bootstrap_port_annotation
            given = {option: value for option, value in options.items() if value}
            yield _setting("membership", [{"name": "kubernetes", "options": given}], each)
        case "enable_trace" if arguments.enable_trace:
            endpoint = arguments.otlp_traces_endpoint.replace(*_COLLECTOR_PORTS)
            yield _setting("tracing.endpoint", endpoint if "://" in endpoint else f"http://{endpoint}", each)
        case "api_key" if arguments.api_key is not None:
            yield _setting("auth.api_key", arguments.api_key, each)
            yield _setting("worker_api_key", arguments.api_key, each)
        case "control_plane_api_keys" if arguments.control_plane_api_keys:
            yield _setting("auth.keys", [_key(*parts) for parts in arguments.control_plane_api_keys], each)


def _is_for_vllm_pairs(arguments: RouterArgs) -> bool:
    return arguments.vllm_pd_disaggregation or arguments.pd_protocol == "vllm"


def _options_of(policy: str, arguments: RouterArgs) -> dict[str, object]:
    """Return the options that a policy has among the launch arguments."""
    return {
        each.fate.name or each.field: getattr(arguments, each.field)
        for each in flags_of(RouterArgs)
        if isinstance(each.fate, PolicyOption) and policy in each.fate.policies
    }


def _key(identity: str, name: str, key: str, role: str) -> dict[str, object]:
    scopes = ["admin", "inference"] if role == "admin" else ["inference"]
    return {"name": identity or name, "key": key, "scopes": scopes}


def _is_given(arguments: RouterArgs, each: Flag) -> bool:
    return getattr(arguments, each.field) not in (default_of(RouterArgs, each.field), each.default)


def _setting(path: str, value: object, each: Flag) -> Setting:
    return Setting(tuple(path.split(".")), value, f"flag {each.option}")
