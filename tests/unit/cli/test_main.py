"""What a user sees of the command itself: help, mistakes, exit codes."""

import os
import subprocess
import sys

import pytest

from router_core.cli.main import main
from router_core.config import RouterConfig


@pytest.fixture
def served(monkeypatch):
    """Stand in for serving; holds the settings it was given."""
    import types

    given = []

    def run_server(config, *_):
        given.append(config)
        return 0

    monkeypatch.setitem(sys.modules, "router_core.cli.serve", types.SimpleNamespace(run_server=run_server))
    for name in [name for name in os.environ if name.startswith("ROUTER_CORE_")]:
        monkeypatch.delenv(name)
    return given


def test_every_problem_with_the_settings_stands_on_a_line_of_its_own_and_the_exit_code_is_2(router_core):
    code, out, err = router_core("serve", "--port", "x", "--worker-urls", "localhost:1", ROUTER_CORE_LOG_LEVEL="loud")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("router-core: error: ") for line in lines)
    assert "flag --port" in err
    assert "flag --worker-urls" in err
    assert "environment variable ROUTER_CORE_LOG_LEVEL" in err


def test_serving_without_a_worker_is_refused_with_the_remedy(router_core):
    code, _, err = router_core("serve")
    assert code == 2
    assert "give --worker-urls http://HOST:PORT" in err


def test_a_missing_config_file_is_refused(router_core):
    code, _, err = router_core("serve", "--config", "gone.yaml")
    assert code == 2
    assert "gone.yaml: there is no such config file" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "--prot", "1", "--polcy=x"], "--prot: unknown flag; did you mean --port?"),
        (["serve", "--prot", "1", "--polcy=x"], "--polcy: unknown flag; did you mean --policy?"),
        (["serve", "--zzzzzzzz"], "--zzzzzzzz: unknown flag; see router-core serve --help"),
        (["serve", "--pol", "x"], "--pol: unknown flag; did you mean --policy?"),
        (["serve", "x"], "x: unexpected argument; see router-core serve --help"),
        (["policies", "--jsn"], "--jsn: unknown flag; did you mean --json?"),
        (["server"], "server: unknown command; did you mean 'serve'?"),
        (["xyz"], "xyz: unknown command; give one of serve, launch, policies, demo"),
        ([], "a command is missing; give one of serve, launch, policies, demo"),
        (["--prot"], "--prot: unknown flag; see router-core --help"),
        (["serve", "--policy", "a", "--policy", "b"], "--policy b: contradicts --policy a; give one of them"),
        (["demo", "--port", "99999"], "--port: 99999 is no port; give a whole number from 0 to 65535"),
    ],
)
def test_a_mistyped_command_line_is_refused_with_the_nearest_name(capsys, arguments, sentence):
    assert main(arguments) == 2
    assert f"router-core: error: {sentence}" in capsys.readouterr().err


def test_a_flag_without_its_value_is_refused(capsys):
    assert main(["serve", "--port"]) == 2
    sentence = "router-core: error: --port: expected one argument; see router-core serve --help\n"
    assert capsys.readouterr().err == sentence


def test_ctrl_c_exits_with_130(monkeypatch, served):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["router_core.cli.serve"], "run_server", interrupted)
    assert main(["serve", "--worker-urls", "http://a"]) == 130


@pytest.mark.parametrize("arguments", [["policies"], ["--help"]])
def test_a_reader_that_goes_away_early_causes_no_traceback(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    completed = subprocess.run(
        [sys.executable, "-m", "router_core", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert completed.returncode in (0, 141)  # argparse forgives a help text that nobody reads
    assert completed.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["policies", "--help"]])
def test_help_exits_with_0(capsys, arguments):
    assert main(arguments) == 0
    assert "usage: router-core" in capsys.readouterr().out


def test_help_of_serve_tells_default_and_variable_of_each_flag(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    main(["serve", "--help"])
    text = capsys.readouterr().out
    assert "(a whole number from 0 to 65535; default: 30000; environment: ROUTER_CORE_PORT)" in text


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("router-core 0.")


def test_help_and_policies_do_without_the_server_and_its_libraries():
    probe = (
        "import sys; from router_core.cli.main import main; main(sys.argv[1:]); "
        "heavy = {'aiohttp', 'uvloop', 'router_core.cli.serve', 'router_core.cli.demo'}; "
        "sys.exit(len(heavy & {*sys.modules}))"
    )
    for arguments in (["--help"], ["policies"], ["--version"]):
        assert subprocess.run([sys.executable, "-c", probe, *arguments], stdout=subprocess.DEVNULL).returncode == 0


def test_nothing_given_leaves_every_setting_at_its_default(served):
    assert main(["serve", "--worker-urls", "http://a"]) == 0
    [config] = served
    defaults = RouterConfig(worker_urls=("http://a",)).model_copy(update={"app_dir": config.app_dir})
    assert config == defaults


def test_every_flag_reaches_its_setting(served, tmp_path):
    (tmp_path / "router.yaml").write_text("health: {interval_s: 2}\nport: 1\n")
    flags = "--host h --port 2 --policy p --policy-option a=1 --policy-option b=x --log-level warn "
    flags += "--prometheus-host m --prometheus-port 3 --worker-urls http://a http://b --worker-urls http://c"
    main(["serve", "--config", str(tmp_path / "router.yaml"), "--app-dir", str(tmp_path), *flags.split()])
    [config] = served
    assert (config.host, config.port, config.log_level, config.app_dir) == ("h", 2, "warning", tmp_path)
    assert (config.prometheus_host, config.prometheus_port) == ("m", 3)
    assert (config.policy.name, config.policy.options) == ("p", {"a": 1, "b": "x"})
    assert config.worker_urls == ("http://a", "http://b", "http://c")
    assert config.health.interval_s == 2


def test_the_exit_code_is_the_servers(monkeypatch, served):
    monkeypatch.setattr(sys.modules["router_core.cli.serve"], "run_server", lambda *_: 7)
    assert main(["serve", "--worker-urls", "http://a"]) == 7


def test_a_flag_that_only_launch_has_names_its_setting(router_core):
    code, _, err = router_core("serve", "--worker-urls", "http://a", "--retry-max-retries", "2")
    assert code == 2
    assert (
        "--retry-max-retries: unknown flag; router-core launch has it; here it is the setting retries.max_attempts"
        in err
    )
