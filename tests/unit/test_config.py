"""What a user's settings become, and what is said when they cannot be used."""

import json
import math
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from router_core.config import PolicySelection, RouterConfig, all_keys, iter_fields, load_config
from router_core.contract.errors import StartupError

WORKER = "http://10.0.0.1:8000"


@pytest.fixture
def write(tmp_path):
    def write(text, name="router.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def load(path=None, environ=None, **flags):
    return load_config(path=path, environ=environ or {}, flags={"worker_urls": [WORKER], **flags})


def problems(path=None, environ=None, **flags):
    with pytest.raises(StartupError) as caught:
        load(path, environ, **flags)
    return caught.value.problems


def problem(path=None, environ=None, **flags):
    [sentence] = problems(path, environ, **flags)
    return sentence


# --- a file that cannot be read ---


def test_a_missing_file_is_named(tmp_path):
    assert problem(tmp_path / "gone.yaml").startswith(f"{tmp_path / 'gone.yaml'}: there is no such config file")


def test_a_folder_is_no_config_file(tmp_path):
    (tmp_path / "router.yaml").mkdir()
    assert "cannot be read" in problem(tmp_path / "router.yaml")


def test_a_file_of_another_kind_says_which_suffixes_are_read(write):
    assert "ends in .yaml, .yml or .toml" in problem(write("{}", "router.json"))


def test_broken_yaml_is_shown_with_its_line(write):
    assert "router.yaml, line 2, column" in problem(write("port: 1\n  host: x\n"))


def test_broken_toml_is_shown_with_its_line(write):
    assert "line 2" in problem(write("port = 1\nhost = \n", "router.toml"))


def test_a_key_that_stands_twice_is_shown_with_both_lines(write):
    sentence = problem(write("health:\n  interval_s: 1\n  timeout_s: 1\n  interval_s: 2\n"))
    assert "line 4" in sentence
    assert "a name stands twice, the first time in line 2; keep one of them: 'interval_s'" in sentence


def test_merged_yaml_mappings_may_repeat_a_key(write):
    text = "policy:\n  options:\n    a: &a {x: 1, y: 1}\n    b: {<<: *a, y: 2}\n    c: {<<: *a, x: 3}\n"
    assert load(write(text)).policy.options["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text"])
def test_a_file_that_holds_no_mapping_is_refused(write, text):
    assert "write settings as `name: value`" in problem(write(text))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "router.yaml"
    path.write_bytes(b"host: \xff\xfe")
    assert "is not UTF-8 text" in problem(path)


def test_a_date_that_is_none_is_refused_in_a_sentence(write):
    assert "is not valid YAML" in problem(write("host: 2024-13-45"))


@pytest.mark.parametrize("text", ["health: &h {endpoint: *h}", "port: " + "[" * 5000])
def test_yaml_without_a_bottom_is_refused(write, text):
    assert "nested too deeply" in problem(write(text))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!secret x"])
def test_yaml_tags_run_nothing(write, tag):
    assert "could not determine a constructor" in problem(write(f"host: {tag}"))


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "health:\n  # interval_s: 5\n"])
def test_an_empty_file_or_section_sets_nothing(write, text):
    assert load(write(text)).health.interval_s == 10


# --- values that cannot be used ---


def test_all_problems_of_all_sources_are_told_together(write):
    path = write("port: high\nlog_level: loud\n")
    told = problems(path, {"ROUTER_CORE_HEALTH__INTERVAL_S": "0", "ROUTER_CORE_PROT": "1"}, policy_option=["margin"])
    assert [sentence.partition(":")[0] for sentence in told] == [
        "ROUTER_CORE_PROT",
        "--policy-option margin",
        "port",
        "log_level",
        "health.interval_s",
    ]


def test_a_problem_names_where_the_value_was_written(write):
    path = write("port: 70000")
    assert problem(path) == f"port: 70000 does not fit; give a whole number from 0 to 65535 ({path})"
    assert problem(environ={"ROUTER_CORE_PORT": "x"}).endswith("(environment variable ROUTER_CORE_PORT)")
    assert problem(port="x").endswith("(flag --port)")


def test_a_value_that_a_higher_source_replaces_is_not_a_problem(write):
    assert load(write("port: nonsense"), port="8080").port == 8080


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot: 1", "prot: unknown setting; did you mean 'port'?"),
        ("health: {intervall_s: 1}", "health.intervall_s: unknown setting; did you mean 'interval_s'?"),
        ("interval_s: 1", "interval_s: unknown setting; did you mean 'health.interval_s'?"),
        ("health: {zzz: 1}", "health.zzz: unknown setting; known here: endpoint, interval_s"),
        ("healt:", "healt: unknown setting; did you mean 'health'?"),
        ("1: x", "1: unknown setting; known here: host, port"),
        ("policy: {name: x, option: {}}", "policy.option: unknown setting; did you mean 'options'?"),
        ("wrappers: [{name: x, fallback: fail}]", "wrappers[0].fallback: unknown setting; did you mean 'policy.fallb"),
    ],
)
def test_an_unknown_setting_gets_the_nearest_name(write, text, sentence):
    assert problem(write(text)).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port: true", "port: True does not fit; give a whole number from 0 to 65535"),
        ("port: -1", "port: -1 does not fit"),
        ("port: 1.5", "port: 1.5 does not fit"),
        ("host: ''", "host: '' is empty"),
        ("host: 1", "host: 1 does not fit; give text"),
        ("health: 5", "health: 5 does not fit; give a mapping with, for example, health.endpoint"),
        ("health: {timeout_s: .nan}", "health.timeout_s: nan does not fit"),
        ("health: {timeout_s: .inf}", "health.timeout_s: inf does not fit; give a number above 0, at most 86400"),
        ("health: {endpoint: health}", "health.endpoint: 'health' is not a path"),
        ('health: {endpoint: "/x HTTP/1.1\\r\\nA: b"}', "health.endpoint: "),
        ("limits: {max_body_bytes: 0}", "limits.max_body_bytes: 0 does not fit; give a whole number, 1024 or more"),
        ("log_level: loud", "log_level: 'loud' does not fit; give one of debug, info, warning, error"),
        ("policy: [a]", "policy: ['a'] does not fit; give a mapping"),
        ("policy: {name: a b}", "policy.name: 'a b' is empty or holds white space"),
        ("policy: {options: [a]}", "policy.options: ['a'] does not fit; give a mapping"),
        ("policy: {fallback: random}", "policy.fallback: 'random' does not fit; give one of least_loaded, fail"),
        ("policy: {seed: true}", "policy.seed: True does not fit; give a whole number"),
        ("wrappers: [3]", "wrappers[0]: 3 does not fit"),
        ("observers: [{options: {a: 1}}]", "observers[0].name: is missing"),
        ("prometheus_port: 30000", "prometheus_port: 30000 is the router's own port"),
        ("prometheus_host: localhost", "prometheus_port: is missing beside prometheus_host"),
        ("dp_size: 4", "dp_size: is for routing to ranks; add dp_aware: true, or leave it out"),
        ("auth: {open_paths: [/workers]}", "auth.open_paths[0]: '/workers' does not fit; give one of /v1/models, "),
        ("error_code_header: content-length", "error_code_header: 'content-length' does not fit; give one of x-smg"),
        ("proxy_unknown_paths: maybe", "proxy_unknown_paths: 'maybe' does not fit; give true or false"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_does(write, text, sentence):
    assert problem(write(text)).startswith(sentence)


def test_a_setting_inside_something_that_is_no_section_is_refused(write):
    [sentence] = problems(write("health: 5"), {"ROUTER_CORE_HEALTH__INTERVAL_S": "1"})
    assert sentence.startswith("health: 5 does not fit")


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError):
        RouterConfig().port = 1


# --- workers ---


def test_without_a_worker_the_three_ways_to_name_one_are_told():
    sentence = problem(worker_urls=[])
    assert sentence.startswith("worker_urls: no worker is named; give --worker-urls http://HOST:PORT")
    assert "ROUTER_CORE_WORKER_URLS" in sentence


def test_a_membership_source_is_enough_without_a_worker(write):
    path = write("membership: [{name: file, options: {path: workers.yaml}}, kubernetes]")
    first, second = load_config(path=path, environ={}, flags={}).membership
    assert (first.name, first.options) == ("file", {"path": "workers.yaml"})
    assert (second.name, second.options) == ("kubernetes", {})
    assert problem(write("membership: []"), worker_urls=[]).startswith("worker_urls: no worker is named")
    assert "membership[0].nam: unknown setting; did you mean 'name'?" in problems(write("membership: [{nam: file}]"))[1]


def test_an_unreadable_file_is_not_blamed_for_naming_no_worker(tmp_path):
    assert "no such config file" in problem(tmp_path / "gone.yaml", worker_urls=[])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8000", "lacks http:// or https://; write 'http://localhost:8000'"),
        ("ftp://a", "neither http nor https"),
        ("http://", "names no valid host"),
        ("http://:8000", "names no valid host"),
        ("http://a b", "names no valid host"),
        ("http://a_b!/", "names no valid host"),
        ("http://[::1", "is not a URL"),
        ("http://a:99999", "is not a URL"),
        ("http://a:x", "is not a URL"),
        ("http://a:0", "no usable port"),
        ("http://a:", "no usable port"),
        ("http://a:1/v1", "has more than host and port; write 'http://a:1'"),
        ("http://a:1?x=1", "has more than host and port"),
        ("http://a:1/#x", "has more than host and port"),
    ],
)
def test_a_worker_url_that_is_none_is_refused(url, reason):
    assert reason in problem(worker_urls=[WORKER, url])
    assert problem(worker_urls=[WORKER, url]).startswith("worker_urls[1]: ")


def test_a_password_in_a_worker_url_is_refused_and_not_shown():
    assert "hunter2" not in problem(worker_urls=["http://me:hunter2@a:1"])


@pytest.mark.parametrize("twin", ["http://a", "http://a/", "HTTP://A:80"])
def test_the_same_worker_twice_is_refused_however_it_is_spelt(twin):
    assert problem(worker_urls=["http://a", twin]).startswith("worker_urls: http://a stands there more than once")


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("http://a:1/", "http://a:1"),
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://a:443", "http://a:443"),
        ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]"),
        ("http://vllm_1:8000", "http://vllm_1:8000"),
    ],
)
def test_a_worker_url_has_one_spelling(url, spelling):
    assert load(worker_urls=[url]).worker_urls == (spelling,)


# --- the environment ---


@pytest.mark.parametrize("text", ["http://a http://b", "http://a,http://b", " http://a, http://b\n"])
def test_worker_urls_in_the_environment_are_parted_by_spaces_or_commas(text):
    config = load_config(path=None, environ={"ROUTER_CORE_WORKER_URLS": text}, flags={})
    assert config.worker_urls == ("http://a", "http://b")


def test_a_part_of_a_section_is_set_with_a_double_underscore():
    assert load(environ={"ROUTER_CORE_HEALTH__INTERVAL_S": "2.5"}).health.interval_s == 2.5


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("ROUTER_CORE_PROT", "did you mean ROUTER_CORE_PORT?"),
        ("ROUTER_CORE_HEALTH_INTERVAL_S", "did you mean ROUTER_CORE_HEALTH__INTERVAL_S?"),
        ("ROUTER_CORE_HEALTH", "set one of its parts, such as ROUTER_CORE_HEALTH__ENDPOINT"),
        ("ROUTER_CORE_POLICY__OPTIONS", "write ROUTER_CORE_POLICY__OPTIONS__<OPTION>"),
        ("ROUTER_CORE_WRAPPERS__0__NAME", "did you mean ROUTER_CORE_"),
        ("ROUTER_CORE_QQQQQQQQQQQ", "unset it"),
    ],
)
def test_an_unknown_variable_is_refused(variable, remedy):
    sentence = problem(environ={variable: "5"})
    assert sentence.startswith(f"{variable}: ")
    assert remedy in sentence


def test_an_empty_variable_sets_nothing():
    assert load(environ={"ROUTER_CORE_PORT": "", "ROUTER_CORE_POLICY": " ", "ROUTER_CORE_PROT": ""}).port == 30000


def test_variables_kubernetes_makes_for_a_service_called_router_core_are_passed_over():
    environ = {
        "ROUTER_CORE_PORT": "tcp://10.96.0.7:30000",
        "ROUTER_CORE_SERVICE_HOST": "10.96.0.7",
        "ROUTER_CORE_SERVICE_PORT": "30000",
        "ROUTER_CORE_SERVICE_PORT_HTTP": "30000",
        "ROUTER_CORE_PORT_30000_TCP": "tcp://10.96.0.7:30000",
        "ROUTER_CORE_PORT_30000_TCP_ADDR": "10.96.0.7",
        "ROUTER_CORE_METRICS_SERVICE_HOST": "10.96.0.8",
    }
    assert load(environ=environ).port == 30000


def test_the_config_file_may_be_named_in_the_environment(write):
    environ = {"ROUTER_CORE_CONFIG": str(write("port: 1"))}
    assert load(environ=environ).port == 1
    assert load(write("port: 2", "other.yaml"), environ).port == 2


def test_names_of_plugins_in_the_environment_are_parted_by_commas():
    config = load(environ={"ROUTER_CORE_OBSERVERS": "metrics, audit"})
    assert [observer.name for observer in config.observers] == ["metrics", "audit"]


# --- which source stands ---


def test_flags_stand_over_the_environment_over_the_file_over_defaults(write):
    path = write("host: file\nport: 1\nlog_level: warn\n")
    environ = {"ROUTER_CORE_HOST": "env", "ROUTER_CORE_PORT": "2"}
    config = load(path, environ, host="flag")
    assert (config.host, config.port, config.log_level, config.prometheus_port) == ("flag", 2, "warning", None)


def test_toml_says_the_same_as_yaml(write):
    yaml = load(write("policy: {name: x, options: {a: 1}}\nhealth: {interval_s: 3}\n"))
    toml = load(write("[policy]\nname = 'x'\noptions = {a = 1}\n[health]\ninterval_s = 3\n", "router.toml"))
    assert yaml == toml


def test_workers_of_a_flag_replace_those_of_the_file(write):
    assert load(write("worker_urls: [http://old-1, http://old-2]")).worker_urls == (WORKER,)


# --- the policy ---


def test_a_plain_string_is_the_policys_name(write):
    named = PolicySelection(name="random")
    assert load(write("policy: random")).policy == named
    assert load(environ={"ROUTER_CORE_POLICY": "random"}).policy == named
    assert load(environ={"ROUTER_CORE_POLICY__NAME": "random"}).policy == named
    assert load(policy="random").policy == named
    assert RouterConfig(policy="random").policy == named


def test_a_variable_that_contradicts_another_is_refused():
    environ = {"ROUTER_CORE_POLICY": "a", "ROUTER_CORE_POLICY__NAME": "b"}
    assert problem(environ=environ) == "ROUTER_CORE_POLICY: contradicts ROUTER_CORE_POLICY__NAME; set one of them"


def test_naming_another_policy_drops_the_options_written_for_the_first(write):
    path = write("policy: {name: x, options: {margin: 4}, seed: 7}")
    policy = load(path, policy="y", policy_option=["depth=2"]).policy
    assert policy == PolicySelection(name="y", options={"depth": 2}, seed=7)


def test_naming_the_same_policy_keeps_its_options_and_adds_to_them(write):
    path = write("policy: {name: x, options: {margin: 4, depth: 1}}")
    environ = {"ROUTER_CORE_POLICY__OPTIONS__DEPTH": "2"}
    assert load(path, environ, policy="x", policy_option=["wide=true"]).policy.options == {
        "margin": 4,
        "depth": 2,
        "wide": True,
    }


def test_options_without_a_name_belong_to_the_default_policy(write):
    path = write("policy: {options: {cache_tokens: 5}}")
    assert load(path, policy="predicted_latency").policy.options == {"cache_tokens": 5}
    assert load(path, policy="random").policy.options == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("3", 3),
        ("0.5", 0.5),
        ("null", None),
        ("text", "text"),
        ("a=b", "a=b"),
        ("a: b", "a: b"),
        ("[1", "[1"),
        ("0b_", "0b_"),
        ("2024-01-01", "2024-01-01"),
        ("http://a:1", "http://a:1"),
    ],
)
def test_an_option_given_as_text_is_read_as_a_yaml_scalar(text, value):
    assert load(policy_option=[f"x={text}"]).policy.options == {"x": value}
    assert load(environ={"ROUTER_CORE_POLICY__OPTIONS__X": text}).policy.options == {"x": value}


def test_an_option_without_a_value_is_empty_text_for_its_policy_to_judge():
    assert load(policy_option=["x="]).policy.options == {"x": ""}


def test_an_option_of_an_option_may_come_from_the_environment(write):
    path = write("policy: {options: {weights: {a: 1}, depth: 3}}")
    environ = {"ROUTER_CORE_POLICY__OPTIONS__WEIGHTS__B": "2", "ROUTER_CORE_POLICY__OPTIONS__DEPTH__MAX": "4"}
    assert load(path, environ).policy.options == {"weights": {"a": 1, "b": 2}, "depth": {"max": 4}}


@pytest.mark.parametrize("pair", ["margin", "=4", " =4"])
def test_a_policy_option_without_key_or_value_is_refused(pair):
    assert "is not KEY=VALUE" in problem(policy_option=[pair])


def test_an_option_given_twice_with_two_values_is_refused():
    assert "contradicts --policy-option a=1" in problem(policy_option=["a=1", "a=2"])
    assert load(policy_option=["a=1", "a=1"]).policy.options == {"a": 1}


# --- where in-house policies are looked up ---


def test_in_house_policies_lie_beside_the_config_file_else_in_the_working_directory(write, tmp_path, monkeypatch):
    assert load(write("port: 1")).app_dir == tmp_path
    assert load().app_dir == Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert load(Path("router.yaml")).app_dir == tmp_path


def test_a_relative_app_dir_starts_at_the_file_that_names_it(write, tmp_path, monkeypatch):
    (tmp_path / "policies").mkdir()
    path = write("app_dir: policies")
    assert load(path).app_dir == tmp_path / "policies"
    monkeypatch.chdir(tmp_path / "policies")
    assert load(path, app_dir=".").app_dir == tmp_path / "policies"


def test_an_app_dir_that_is_no_folder_is_refused():
    assert problem(app_dir="/nowhere/at/all").startswith(
        "app_dir: /nowhere/at/all is not a folder; give one that exists"
    )


# --- what the reference page is made of ---


def test_every_setting_is_described_in_words():
    fields = {field.path: field for field in iter_fields()}
    assert all(field.description and field.expects for field in fields.values())
    assert fields["health.interval_s"].variable == "ROUTER_CORE_HEALTH__INTERVAL_S"
    assert fields["port"].flag == "--port"
    assert fields["port"].expects == "a whole number from 0 to 65535"


def test_every_setting_with_a_plain_default_can_be_set_by_its_variable():
    fields = [field for field in iter_fields() if isinstance(field.default, str | int | float)]
    environ = {field.variable: str(field.default) for field in fields}
    config = load_config(path=None, environ=environ, flags={"worker_urls": [WORKER]})
    assert len(fields) > 20
    assert config == load()


def test_no_default_is_out_of_its_own_range():
    config = RouterConfig()
    assert math.isfinite(config.limits.request_timeout_s)
    assert RouterConfig.model_validate(config.model_dump()) == config


# --- prefill and decode workers ---


def test_pairs_may_be_written_in_every_place(tmp_path):
    expected = [("http://p0:1", 8998), ("http://p1:1", None)]
    path = tmp_path / "router.yaml"
    path.write_text(
        "pd: {prefill: [{url: http://p0:1, bootstrap_port: 8998}, http://p1:1], decode: [http://d:1], protocol: vllm,"
        " options: {connector: p2p}}\n"
    )
    flags = {
        "pd_disaggregation": True,
        "prefill": [["http://p0:1", "8998"], ["http://p1:1", "none"]],
        "decode": ["http://d:1"],
        "prefill_policy": "random",
    }
    environ = {
        "ROUTER_CORE_PD__PREFILL": "http://p0:1 8998, http://p1:1",
        "ROUTER_CORE_PD__DECODE": "http://d:1",
        "ROUTER_CORE_PD__OPTIONS__LINGER_S": "3",
        "ROUTER_CORE_DECODE_POLICY": "round_robin",
    }
    from_file = load_config(path=path, environ={}, flags={})
    from_flags = load_config(path=None, environ={}, flags=flags)
    from_environ = load_config(path=None, environ=environ, flags={})
    for config in (from_file, from_flags, from_environ):
        assert config.pd.is_on
        assert [(worker.url, worker.bootstrap_port) for worker in config.pd.prefill] == expected
        assert config.pd.decode == ("http://d:1",)
    assert (from_file.pd.protocol, from_file.pd.options) == ("vllm", {"connector": "p2p"})
    assert from_flags.prefill_policy.name == "random"
    assert (from_environ.decode_policy.name, from_environ.pd.options) == ("round_robin", {"linger_s": 3})


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"pd_disaggregation": True, "decode": ["http://d:1"]}, "no prefill worker is named"),
        ({"prefill": [["http://p:1"]]}, "no decode worker is named"),
        ({"decode": ["http://d:1"]}, "no prefill worker is named"),
        (
            {"prefill": [["http://p:1", "0"]], "decode": ["http://d:1"]},
            "pd.prefill[0].bootstrap_port: '0' does not fit",
        ),
        ({"prefill": [["http://p:1", "1", "2"]], "decode": ["http://d:1"]}, "is not URL [PORT]"),
        ({"prefill": [["p:1"]], "decode": ["http://d:1"]}, "pd.prefill[0].url: 'p:1' lacks http://"),
        ({"prefill": [["http://x:1"]], "decode": ["http://x:1"]}, "stands there more than once"),
        (
            {"prefill": [["http://p:1"]], "decode": ["http://d:1"], "worker_urls": ["http://w:1"]},
            "pd: stands beside worker_urls",
        ),
        ({"worker_urls": ["http://w:1"], "prefill_policy": "random"}, "has no workers for prefill_policy"),
    ],
)
def test_what_is_wrong_with_pairs_is_a_sentence(flags, problem):
    with pytest.raises(StartupError) as caught:
        load_config(path=None, environ={}, flags=flags)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_an_unknown_setting_of_a_prefill_worker_names_the_known_ones(tmp_path):
    path = tmp_path / "router.yaml"
    path.write_text("pd: {prefill: [{url: http://p:1, bootstrap_prot: 1}], decode: [http://d:1]}\n")
    with pytest.raises(StartupError, match=r"pd\.prefill\[0\]\.bootstrap_prot: unknown .*'bootstrap_port'"):
        load_config(path=path, environ={}, flags={})


def test_pairs_may_be_left_to_sources_of_membership():
    config = load_config(path=None, environ={"ROUTER_CORE_MEMBERSHIP": "static"}, flags={"pd_disaggregation": True})
    assert config.pd.is_on
    assert config.pd.prefill == ()


# --- API keys ---


def test_keys_come_from_environment_settings_and_a_file_beside_the_config(write):
    write("keys:\n  - {name: ops, sha256: '" + "0aF9" * 16 + "', scopes: [admin]}\n", "keys.yaml")
    path = write("auth:\n  keys: [{name: a, key: sk-a, max_concurrent_requests: 4}]\n  keys_file: keys.yaml\n")
    config = load(path, {"ROUTER_CORE_AUTH__API_KEY": "sk-one"})
    keys = {key.name: key for key in all_keys(config.auth)}
    assert keys.keys() == {"default", "a", "ops"}
    assert set(keys["default"].scopes) == {"inference", "admin"}
    assert (keys["a"].scopes, keys["a"].max_concurrent_requests) == (("inference",), 4)
    assert keys["ops"].digest.hex() == "0af9" * 16


def test_several_keys_fit_into_one_variable():
    config = load(environ={"ROUTER_CORE_AUTH__KEYS": "a=sk-a b:admin+inference=sk-b=="})
    assert [(key.name, key.scopes, key.key.get_secret_value()) for key in all_keys(config.auth)] == [
        ("a", ("inference",), "sk-a"),
        ("b", ("admin", "inference"), "sk-b=="),
    ]


SECRET = "sk-s3cret"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([SECRET], "auth.keys[0]: is not NAME=KEY"),
        ([{"name": "a", "key": SECRET + " "}], "auth.keys[0].key: an API key is printable ASCII without spaces"),
        ([{"name": "a", "key": [SECRET]}], "auth.keys[0].key: the value does not fit; give text"),
        ([{"name": "a", "sha256": SECRET}], "auth.keys[0].sha256: this is no SHA-256"),
        ([{"name": "a"}], "auth.keys[0]: give either key or sha256"),
        ([{"name": "a", "key": SECRET, "sha256": "0" * 64}], "auth.keys[0]: give either key or sha256"),
        ([{"name": "a b", "key": SECRET}], "auth.keys[0].name: a key's name is up to 64 letters"),
        (
            [{"name": "a", "key": SECRET, "scope": "admin"}],
            "keys[0]: unknown name; did you mean 'scopes'?",
        ),
        (
            [{"name": "a", "key": SECRET, "scopes": ["root"]}],
            "keys[0].scopes[0]: the value does not fit; give one or more of inference",
        ),
        ([{"name": "a", "key": SECRET, "scopes": []}], "does not fit; give one or more of inference, admin"),
        ([{"name": "a", "key": SECRET, "weight": 0}], "keys[0].weight: the value does not fit; give a number above 0"),
        ([{"name": "b", "key": "sk-b", SECRET: "a"}], "keys[0]: unknown name; known here: name, key, sha256"),
        ([{"name": "a", "key": "sk-a", "scopes": SECRET}], "keys[0].scopes[0]: the value does not fit; give one"),
        ([{"name": "a", "key": "sk-a", "max_priority": SECRET}], "keys[0].max_priority: the value does not fit"),
        ([{"name": "a", "key": "sk-a", "weight": {SECRET: 1}}], "keys[0].weight: the value does not fit"),
        (SECRET, "auth.keys[0]: is not NAME=KEY"),
        ({SECRET: 1}, "auth.keys: the value does not fit; give a list of API keys"),
    ],
)
def test_what_is_wrong_with_a_key_is_a_sentence_that_does_not_show_it(write, keys, sentence):
    path = write(json.dumps({"auth": {"keys": keys}}))
    found = problem(path)
    assert sentence in found
    assert SECRET not in found.replace(str(path), "")
    if isinstance(keys, list):
        write(json.dumps({"keys": keys}), "keys.yaml")
        config = load(write("auth: {keys_file: keys.yaml}"))
        with pytest.raises(StartupError) as caught:
            all_keys(config.auth)
        assert sentence.removeprefix("auth.") in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SECRET: a\n", ": has a name beside `keys`, the only one known there; write"),
        ("keys: []\nSECRET: a\n", ": has a name beside `keys`"),
        ("keys:\n - {SECRET: 1, name: a, SECRET: 2}\n", ", line 2, column 28: a name stands twice, the first time in"),
        ("keys: *SECRET\n", ", line 1, column 7: found undefined alias"),
        ("keys: !SECRET x\n", ", line 1, column 7: could not determine a constructor for the tag"),
        ("keys: !!float SECRET\n", ": is not valid YAML: could not convert string to float:"),
        ("keys: [a=SECRET\n", ", line 2, column 1: expected"),
        ("a = {SECRET = 1, SECRET = 2}", ": is not valid TOML: Duplicate inline table key (at line 1, column"),
        ("keys = [SECRET]", ": is not valid TOML: Invalid value (at line 1, column 9)"),
    ],
)
def test_a_wrong_file_of_keys_is_not_quoted(write, text, sentence):
    file = write(text.replace("SECRET", SECRET), "keys.toml" if "TOML" in sentence else "keys.yaml")
    config = load(write(f"auth: {{keys_file: {file.name}}}"))
    with pytest.raises(StartupError) as caught:
        all_keys(config.auth)
    assert f"{file}{sentence}" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_key_in_place_of_the_file_of_keys_is_not_shown():
    found = problem(environ={"ROUTER_CORE_AUTH__KEYS_FILE": SECRET})
    assert found.startswith("auth.keys_file: the value is no file; give one that exists (environment variable ")
    assert SECRET not in found


def test_names_and_keys_stand_once():
    config = load(environ={"ROUTER_CORE_AUTH__KEYS": "a=sk-a a=sk-b c=sk-a"})
    with pytest.raises(StartupError) as caught:
        all_keys(config.auth)
    assert caught.value.problems == (
        "auth.keys[1]: is called 'a', as auth.keys[0] is; rename one of them",
        "auth.keys[2]: 'c' has the same key as auth.keys[0]; give each its own",
    )


def test_a_file_of_keys_that_is_not_there_is_named(write):
    assert "auth.keys_file: " in problem(write("auth: {keys_file: gone.yaml}"))


def test_keys_that_anybody_may_read_are_warned_of(write, caplog):
    file = write("keys: [a=sk-a]", "keys.yaml")
    config = load(write("auth: {keys_file: keys.yaml}"))
    file.chmod(0o600)
    all_keys(config.auth)
    assert not caplog.records
    file.chmod(0o644)
    all_keys(config.auth)
    assert "anybody on this machine may read these API keys" in caplog.text


def test_settings_do_not_show_keys():
    config = load(environ={"ROUTER_CORE_AUTH__KEYS": f"a={SECRET}", "ROUTER_CORE_AUTH__API_KEY": SECRET})
    assert SECRET not in repr(config) + str(config) + config.model_dump_json()


def test_files_named_in_a_config_file_lie_beside_it(write, tmp_path):
    path = write("tls: {cert: tls/cert.pem, key: /etc/key.pem}\nworker_tls: {ca: [a.pem, b.pem]}\n")
    config = load(path)
    assert (config.tls.cert, config.tls.key) == (tmp_path / "tls/cert.pem", Path("/etc/key.pem"))
    assert config.worker_tls.ca == (tmp_path / "a.pem", tmp_path / "b.pem")
    assert load(environ={"ROUTER_CORE_TLS__CERT": "c", "ROUTER_CORE_TLS__KEY": "k"}).tls.cert == Path("c")


def test_a_list_of_numbers_may_be_one_text_and_its_items_are_told_by_their_range():
    config = load_config(
        path=None, environ={"ROUTER_CORE_RETRIES__STATUSES": "500, 503"}, flags={"worker_urls": ["http://a"]}
    )
    assert config.retries.statuses == (500, 503)
    with pytest.raises(
        StartupError, match=r"retries.statuses\[0\]: '200' does not fit; give whole numbers from 400 to 599"
    ):
        load_config(path=None, environ={"ROUTER_CORE_RETRIES__STATUSES": "200"}, flags={"worker_urls": ["http://a"]})


def test_a_url_in_a_ports_place_is_told_to_stand_by_itself():
    with pytest.raises(StartupError, match="is no bootstrap port; give each prefill worker by itself"):
        load_config(path=None, environ={}, flags={"prefill": [["http://p:1", "http://q:1"]], "decode": ["http://d:1"]})


# --- settings that contradict each other ---


def test_settings_that_contradict_each_other_are_told_with_all_the_places_they_were_written_in(write):
    path = write("pd: {prefill: [http://p:1], decode: [http://d:1]}\n")
    assert problem(path).endswith(f"({path}, flag --worker-urls)")
    path = write("admin_host: 10.0.0.1\n")
    assert problem(path).endswith(f"({path})")
    path = write("tls: {client_ca: ca.pem}\n")
    assert problem(path, {"ROUTER_CORE_TLS__CERT": "c.pem"}).endswith(
        f"({path}, environment variable ROUTER_CORE_TLS__CERT)"
    )
    path = write("prometheus_port: 8080\n")
    assert problem(path, port="8080").endswith(f"({path}, flag --port)")
    path = write("pd: {decode: [http://d:1]}\nprefill_policy: random\n")
    assert load_config(path=write("pd: {prefill: [http://p:1], decode: [http://d:1]}"), environ={}, flags={}).pd.is_on
    assert problem(write("prefill_policy: random")).endswith(f"({path})")


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_a_file_that_is_none_is_told_by_its_path(write, tmp_path, name):
    path = write(f"auth: {{keys_file: {name}}}")
    shown = str(tmp_path / name)
    assert problem(path) == f"auth.keys_file: '{shown}' is no file; give one that exists ({path})"


@pytest.mark.parametrize("setting", ["queue_size: 5", "queue_timeout_s: 5", "priority_header: x-p"])
def test_a_queue_that_nothing_fills_is_refused(write, setting):
    name = setting.partition(":")[0]
    sentence = problem(write(f"admission: {{{setting}}}"))
    assert sentence.startswith(f"admission: {name} has no effect, for nobody waits; set ")
    assert "max_concurrent_requests" in sentence


@pytest.mark.parametrize(
    "limit",
    [
        "admission: {queue_size: 5, max_concurrent_requests: 3}",
        "admission: {queue_size: 5, requests_per_s: 3}",
        "admission: {queue_size: 5, tokens_per_s: 3}",
        "{admission: {queue_size: 5}, auth: {keys: [{name: a, key: b, max_concurrent_requests: 1}]}}",
    ],
)
def test_a_queue_may_be_set_where_a_limit_fills_it(write, limit):
    assert load(write(limit)).admission.queue_size == 5


def test_a_bound_that_the_largest_body_does_not_fit_into_is_refused(write):
    path = write("limits: {max_body_bytes: 4096, max_buffered_bytes: 2048}")
    assert problem(path).startswith("limits.max_buffered_bytes: 2048 is below max_body_bytes, 4096: the largest body")


@pytest.mark.parametrize(
    ("limits", "buffered"),
    [
        ("{}", 2**31),
        ("{max_body_bytes: 4294967296}", 2**32),
        ("{max_buffered_bytes: 1073741824}", 2**30),
        ("{max_buffered_bytes: 0}", 0),
    ],
)
def test_larger_bodies_need_no_other_setting(write, limits, buffered):
    assert load(write(f"limits: {limits}")).limits.max_buffered_bytes == buffered


def test_a_worker_named_in_two_places_is_told_with_both(write):
    path = write("models: [{name: m}, {name: n, worker_urls: ['http://10.0.0.1:8000']}]")
    sentence = "worker_urls and models[1]: http://10.0.0.1:8000 stands in both; name each worker once"
    assert problem(path) == f"{sentence} (flag --worker-urls, {path})"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("metrics_compat: [prometheus]", "metrics_compat[0]: 'prometheus' does not fit; give one of smg, vllm_router"),
        ("cors_allowed_origins: [3]", "cors_allowed_origins[0]: 3 does not fit; give an origin, https://HOST[:PORT]"),
        ("request_id_headers: [3]", "request_id_headers[0]: 3 does not fit; give the name of a header"),
        ("retries: {statuses: [x]}", "retries.statuses[0]: 'x' does not fit; give whole numbers from 400 to 599"),
        ("models: [3]", "models[0]: 3 does not fit; give a name, or a mapping with name"),
        ("pd: {decode: [3]}", "pd.decode[0]: 3 does not fit; give a URL, http://HOST:PORT"),
    ],
)
def test_an_item_of_a_list_is_told_with_what_an_item_is(write, text, sentence):
    assert problems(write(text))[0].startswith(sentence)
