"""The tutorial and the A/B how-to, walked as a newcomer would: their files and commands, real sockets and processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
TUTORIAL = (ROOT / "docs" / "tutorial" / "first-policy.md").read_text()
AB_TEST = (ROOT / "docs" / "howto" / "ab-test-a-policy.md").read_text()
PACKAGE = EXAMPLES / "router-policy-sticky-user"
STATE_TIMEOUT_S = 30
NO_NETWORK = ("error sending request", "dns error", "failed to fetch", "connection refused", "network is unreachable")


# --- what the page says ---


def commands(page, beginning):
    """Return the commands of a page that begin so, in order."""
    return [line[2:] for line in page.splitlines() if line.startswith(f"$ {beginning}")]


def output_after(page, command):
    """Return the block of text that follows a command."""
    return re.search(r"```text\n(.*?)```", page.partition(f"$ {command}\n")[2], re.DOTALL)[1]


# --- doing it ---


def environment(*paths):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_CORE_")}
    return clean | {"COLUMNS": "120", "PYTHONPATH": os.pathsep.join(map(str, paths))}


def router_core(command, folder, *paths):
    """Run a `router-core ...` command of the page and return what it prints."""
    words = [sys.executable, "-m", "router_core", *shlex.split(command)[1:]]
    done = subprocess.run(
        words, cwd=folder, env=environment(*paths), capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@contextlib.contextmanager
def engines(command):
    """Run the simulated engines of a command on free ports; yield their URLs."""
    words = [sys.executable, *shlex.split(command)[1:], "--port", "0", "--exit-with-stdin"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield list(iter(lambda: process.stdout.readline().strip(), "ready"))
        finally:
            process.stdin.close()
            process.wait(10)


@contextlib.contextmanager
def router(command, urls, folder, *paths):
    """Run the router of a command before other workers and on a free port; yield its URL once it is ready."""
    words = shlex.split(command)
    first, last = words.index("--worker-urls") + 1, words.index("--policy")
    assert len(words[first:last]) == len(urls)
    words = [sys.executable, "-m", "router_core", "serve", "--worker-urls", *urls, *words[last:]]
    process = subprocess.Popen(
        [*words, "--host", "127.0.0.1", "--port", "0"],
        cwd=folder,
        env=environment(*paths),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = ""
        while not (found := re.search(r"listening on (\S+),", said)):
            line = process.stderr.readline()
            assert line, f"it did not start:\n{said}"
            said += line
        wait_until_ready(found[1], len(urls))
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def wait_until_ready(url, workers):
    deadline = time.monotonic() + STATE_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{url}/readiness") as response:
            if json.load(response)["healthy_workers"] == workers:
                return
    raise AssertionError(f"{url} was not ready with {workers} workers within {STATE_TIMEOUT_S} s")


def curl(command, url):
    """Do what a `curl` command of the page does, at another address; return the engine that answered."""
    words = shlex.split(command)
    target = next(word for word in words if word.startswith("http://")).replace("http://127.0.0.1:30000", url)
    body = words[words.index("-d") + 1].encode()
    request = urllib.request.Request(target, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.headers["x-simulated-engine"]


def metrics(url):
    with urllib.request.urlopen(f"{url}/metrics") as response:
        return response.read().decode()


# --- the tutorial ---


def test_the_first_file_routes_real_requests(tmp_path):
    shutil.copy(EXAMPLES / "first-policy" / "my_policy.py", tmp_path)
    show = commands(TUTORIAL, "router-core policies my_policy")[0]
    assert router_core(show, tmp_path) == output_after(TUTORIAL, show)
    serve = commands(TUTORIAL, "router-core serve")[0]
    with (
        engines(commands(TUTORIAL, "python -m router_core.testing.simulated_engine")[0]) as urls,
        router(serve, urls, tmp_path) as url,
    ):
        ada, ada_again, _grace = (curl(command, url) for command in commands(TUTORIAL, "curl -si"))
        assert ada == ada_again
        found = re.search(r"router_core_policy_decisions_total\{.*\} ", metrics(url))[0]
    printed = output_after(TUTORIAL, "curl -s http://127.0.0.1:30000/metrics | grep router_core_policy")
    assert re.sub(r":\d+", "", found) == re.sub(r":\d+", "", printed.rpartition(" ")[0] + " ")


def test_the_second_file_takes_its_option_and_says_why(tmp_path):
    shutil.copy(PACKAGE / "src" / "router_policy_sticky_user" / "policy.py", tmp_path)
    serve = commands(TUTORIAL, "router-core serve")[1]
    with (
        engines(commands(TUTORIAL, "python -m router_core.testing.simulated_engine")[0]) as urls,
        router(serve, urls, tmp_path) as url,
    ):
        curl(commands(TUTORIAL, "curl -si")[0], url)
        assert 'reason="home"' in metrics(url)


@pytest.mark.parametrize("option", ["margn=2", "margin=-1"])
def test_an_option_that_does_not_fit_keeps_it_from_starting(tmp_path, option):
    assert option in TUTORIAL
    shutil.copy(PACKAGE / "src" / "router_policy_sticky_user" / "policy.py", tmp_path)
    serve = commands(TUTORIAL, "router-core serve")[1].replace("margin=2", option)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        router_core(serve, tmp_path)
    assert caught.value.returncode == 2
    assert caught.value.stderr.startswith(f"router-core: error: policy.options.{option.partition('=')[0]}: ")


def run_tests(folder, *paths, arguments=()):
    """Run a folder's tests as its author does: in that folder, with pytest's own defaults."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            "--rootdir",
            ".",
            *arguments,
        ],
        cwd=folder,
        env=environment(*paths),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_tutorials_package_passes_its_tests(tmp_path):
    folder = shutil.copytree(PACKAGE, tmp_path / "package")
    done = run_tests(folder, folder / "src")
    assert done.returncode == 0, done.stdout
    assert "28 passed" in done.stdout  # 27 questions of the kit, as the page says, and one of its own


def test_the_kit_catches_what_the_tutorial_says_it_catches(tmp_path):
    folder = shutil.copytree(PACKAGE, tmp_path / "package")
    policy = folder / "src" / "router_policy_sticky_user" / "policy.py"
    anonymous = 'explain("anonymous")\n            return '
    assert anonymous + "idlest" in policy.read_text()
    policy.write_text(policy.read_text().replace(anonymous + "idlest", anonymous + "workers[0]"))
    done = run_tests(folder, folder / "src", arguments=("-k", "spreads"))
    assert "test_spreads_when_idle" in done.stdout
    assert "test_spreads_a_burst" in done.stdout
    assert done.returncode == 1


def test_the_in_house_example_passes_its_tests(tmp_path):
    folder = shutil.copytree(EXAMPLES / "in-house", tmp_path / "in-house")
    done = run_tests(folder, arguments=("-k", "busy_home or slips or documented or needs or affinity"))
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout  # the policy is the package's, which has passed them all


def test_the_package_installs_and_routes(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("wheels are installed by uv: install the dependency group `dev`")
    target = tmp_path / "site"
    done = subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--target", target, PACKAGE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode and not os.environ.get("CI") and any(sign in done.stderr.lower() for sign in NO_NETWORK):
        pytest.skip("no package registry within reach")
    assert done.returncode == 0, done.stderr
    show = commands(TUTORIAL, "router-core policies sticky_user")[0]
    serve = commands(TUTORIAL, "router-core serve")[2]
    printed = output_after(TUTORIAL, serve)
    assert router_core(show, tmp_path, target) == printed
    with (
        engines(commands(TUTORIAL, "python -m router_core.testing.simulated_engine")[0]) as urls,
        router(serve, urls, tmp_path, target) as url,
    ):
        curl(commands(TUTORIAL, "curl -si")[0], url)
        assert 'source="router-policy-sticky-user 0.1.0"' in metrics(url)
        assert 'reason="home"' in metrics(url)


# --- the A/B test ---


def table(text):
    return {line[:26].strip(): line[26:].split() for line in text.splitlines()}


def test_two_policies_are_compared_side_by_side(tmp_path):
    one, other = commands(AB_TEST, "router-core serve")
    with (
        engines(commands(AB_TEST, "python -m router_core.testing.simulated_engine")[0]) as urls,
        router(one, urls[:2], tmp_path) as first,
        router(other, urls[2:], tmp_path) as second,
    ):
        for script in ("traffic.py", "compare.py"):
            words = shlex.split(commands(AB_TEST, f"python {script}")[0])
            assert words[2:] == ["http://127.0.0.1:30001", "http://127.0.0.1:30002"]
            done = subprocess.run(
                [sys.executable, EXAMPLES / "ab-test" / script, first, second],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
    rows = table(done.stdout)
    printed = table(output_after(AB_TEST, commands(AB_TEST, "python compare.py")[0]))
    assert list(rows) == list(printed)
    for exact in ("policy", "requests", "successful", "faults"):
        assert rows[exact] == printed[exact]
