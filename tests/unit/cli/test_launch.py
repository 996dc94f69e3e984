"""`launch`: another router's arguments become this one's settings, or a sentence."""

from __future__ import annotations

import argparse

import pytest

from router_core.cli.launch.settings import config_from, notes_on
from router_core.cli.main import main
from router_core.contract.errors import StartupError
from router_core.launch_router import RouterArgs


def parsed(*argv: str, prefixed: bool = False) -> RouterArgs:
    parser = argparse.ArgumentParser()
    RouterArgs.add_cli_args(parser, use_router_prefix=prefixed)
    return RouterArgs.from_cli_args(parser.parse_args(argv), use_router_prefix=prefixed)


def test_without_arguments_the_defaults_are_the_other_routers():
    config = config_from(parsed())
    assert config.worker_urls == ()  # they may join later
    assert (config.host, config.port) == ("0.0.0.0", 30000)
    assert (config.prometheus_host, config.prometheus_port) == ("0.0.0.0", 29000)
    assert (config.policy.name, config.policy.options["cache_threshold"]) == ("cache_aware", 0.3)
    assert (config.health.interval_s, config.health.success_threshold) == (60, 2)
    assert (config.retries.max_attempts, config.retries.initial_backoff_s, config.retries.max_backoff_s) == (
        5,
        0.05,
        30,
    )
    assert (config.breaker.failure_threshold, config.breaker.open_s, config.breaker.window_s) == (10, 60, 120)
    assert config.limits.shutdown_grace_s == 180
    assert config.admission.max_concurrent_requests is None
    assert tuple(config.forward_headers) == ("sglang",)
    assert config.unknown_models == "pass"
    assert config.error_code_header == "x-smg-error-code"
    assert config.metrics_compat == ("smg", "vllm_router")
    assert set(config.auth.open_paths) == {
        "/v1/models",
        "/get_model_info",
        "/get_server_info",
        "/health_generate",
        "/engine_metrics",
    }


def test_a_router_made_in_python_has_no_metrics_port_unless_one_is_given():
    assert config_from(RouterArgs()).prometheus_port is None
    assert config_from(RouterArgs(prometheus_port=1234)).prometheus_port == 1234


def test_pairs_are_named_as_there():
    config = config_from(
        parsed(
            *("--pd-disaggregation", "--prefill", "http://p:1", "8998", "--prefill", "http://q:1", "none"),
            *("--prefill", "http://r:1", "--decode", "http://d:1", "--decode", "http://e:1"),
            *("--prefill-policy", "cache_aware", "--decode-policy", "power_of_two", "--cache-threshold", "0.6"),
        )
    )
    assert [(each.url, each.bootstrap_port) for each in config.pd.prefill] == [
        ("http://p:1", 8998),
        ("http://q:1", None),
        ("http://r:1", None),
    ]
    assert config.pd.decode == ("http://d:1", "http://e:1")
    assert config.pd.protocol == "sglang"
    assert config.prefill_policy.options["cache_threshold"] == 0.6
    assert (config.decode_policy.name, config.decode_policy.options) == ("power_of_two", {})


def test_pairs_of_vllm_workers_are_named_as_in_its_router():
    config = config_from(
        parsed(
            "--vllm-pd-disaggregation",
            "--kv-connector",
            "mooncake",
            "--prefill",
            "http://p:1",
            "--decode",
            "http://d:1",
        )
    )
    assert (config.pd.protocol, config.pd.options) == ("vllm", {"connector": "mooncake"})


def test_ranks_of_engines_that_do_not_tell_are_counted_as_in_vllms_router():
    config = config_from(parsed("--intra-node-data-parallel-size", "4", "--worker-urls", "http://w:1"))
    assert (config.dp_aware, config.dp_size) == (True, 4)
    config = config_from(parsed("--intra-node-data-parallel-size", "1"))
    assert (config.dp_aware, config.dp_size) == (False, None)


def test_pods_of_vllms_pairs_say_their_bootstrap_port_as_for_its_router():
    arguments = ("--service-discovery", "--prefill-selector", "a=b", "--decode-selector", "c=d")
    for flag, annotation in (("--vllm-pd-disaggregation", "vllm.ai"), ("--pd-disaggregation", "sglang.ai")):
        (source,) = config_from(parsed(flag, *arguments)).membership
        assert source.options["bootstrap_port_annotation"] == f"{annotation}/bootstrap-port"


def test_log_levels_of_both_routers_are_taken():
    given = ("debug", "info", "warn", "warning", "error", "critical")
    levels = [config_from(parsed("--log-level", level)).log_level for level in given]
    assert levels == ["debug", "info", "warning", "warning", "error", "error"]


def test_discovery_becomes_a_source_of_membership():
    config = config_from(
        parsed("--service-discovery", "--selector", "app=vllm", "tier=prod", "--service-discovery-port", "8000")
    )
    (source,) = config.membership
    assert source.name == "kubernetes"
    assert source.options["selector"] == {"app": "vllm", "tier": "prod"}
    assert source.options["port"] == 8000


def test_keys_protect_both_doors_and_are_given_to_workers():
    config = config_from(
        parsed("--api-key", "s3cret", "--control-plane-api-keys", "k1:Ops:admin:t0p", "k2:App:user:l0w")
    )
    assert config.worker_api_key.get_secret_value() == "s3cret"
    assert {key.name: set(key.scopes) for key in config.auth.keys} == {
        "k1": {"admin", "inference"},
        "k2": {"inference"},
    }


@pytest.mark.parametrize(
    ("argv", "endpoint"),
    [
        ((), "http://localhost:4318/v1/traces"),
        (("--otlp-traces-endpoint", "collector:4317"), "http://collector:4318/v1/traces"),
        (("--otlp-traces-endpoint", "https://collector:9/x"), "https://collector:9/x"),
    ],
)
def test_traces_are_sent_to_the_collectors_http_port(argv, endpoint):
    assert config_from(parsed("--enable-trace", *argv)).tracing.endpoint == endpoint
    assert config_from(parsed()).tracing.endpoint is None


def test_an_option_of_the_policy_may_be_given_for_anyones_policy():
    config = config_from(parsed("--policy", "random", "--policy-option", "a=1", "--policy-option", "b=x y"))
    assert config.policy.options == {"a": 1, "b": "x y"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--reasoning-parser", "qwen3"), "--reasoning-parser: is not honoured: give it to the engines"),
        (("--log-dir", "/tmp/x"), "--log-dir: is not honoured: the router logs to standard error"),
        (("--mini-lb",), "--mini-lb: is not honoured"),
        (("--history-backend", "redis"), "--history-backend: is not honoured"),
        (("--policy", "random", "--cache-threshold", "0.5"), "is an option of cache_aware, and the policy is random"),
        (("--selector", "a=b"), "--selector: is for Kubernetes; add --service-discovery"),
        (("--selector", "nonsense", "--service-discovery"), "--selector nonsense: is not KEY=VALUE; write --selector"),
        (("--otlp-traces-endpoint", "foo:4317"), "--otlp-traces-endpoint: is for traces; add --enable-trace"),
        (("--policy", "bucket"), "--policy: the policy bucket of other routers is not there: predicted_latency"),
        (("--pd-disaggregation", "--prefill-policy", "bucket"), "--prefill-policy: the policy bucket of other routers"),
        (("--kv-event-block-size", "32"), "--kv-event-block-size: is not honoured: the router needs no KV events"),
        (("--vllm-discovery-address", "0.0.0.0:1"), "--vllm-discovery-address: is not honoured: workers do not report"),
        (("--vllm-pd-disaggregation", "--kv-connector", "moriio"), "--kv-connector moriio: is not there"),
        (("--kv-connector", "mooncake"), "--kv-connector: is for pairs of vLLM workers; add --vllm-pd-disaggregation"),
        (("--wasm-middleware-route", "/v1"), "--wasm-middleware-route: is not honoured"),
        (("--intra-node-data-parallel-size", "0"), "dp_size: 0 does not fit; give a whole number"),
        (("--worker-urls", "10.0.0.1:8000"), "worker_urls[0]: '10.0.0.1:8000' lacks http://"),
        (("--retry-jitter-factor", "7"), "retries.jitter"),
        (("--prefill", "http://p:1", "x", "--decode", "http://d:1"), "--prefill http://p:1 x: 'x' is no port"),
        (("--control-plane-api-keys", "no-colons-s3cret"), "--control-plane-api-keys: no. 1 is not ID:NAME:ROLE:KEY"),
    ],
)
def test_what_is_not_honoured_or_does_not_fit_is_a_sentence(argv, sentence, capsys):
    assert main(["launch", *argv]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "s3cret" not in said


def test_a_value_equal_to_the_default_is_no_wish():
    config_from(parsed("--history-backend", "memory", "--oracle-pool-min", "1", "--policy", "random"))


def test_what_the_router_does_anyway_is_noted():
    (note,) = notes_on(parsed("--worker-startup-timeout-secs", "60"))
    assert note.startswith("--worker-startup-timeout-secs changes nothing: ")


def test_a_framework_puts_the_flags_among_its_own():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="10.1.1.1")
    parser.add_argument("--port", type=int, default=9)
    parser.add_argument("--policy", default="ppo")
    RouterArgs.add_cli_args(parser, use_router_prefix=True, exclude_host_port=True)
    parsed = parser.parse_args(["--router-policy", "random", "--worker-urls", "http://w:1", "--router-dp-aware"])
    arguments = RouterArgs.from_cli_args(parsed, use_router_prefix=True)
    assert (arguments.policy, arguments.worker_urls, arguments.dp_aware) == ("random", ["http://w:1"], True)
    assert (arguments.host, arguments.port) == ("10.1.1.1", 9)
    assert parsed.policy == "ppo"


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(StartupError) as caught:
        config_from(RouterArgs(mini_lb=True, log_dir="/x", policy="no such"))
    assert len(caught.value.problems) == 3
