"""The wheels as strangers get them: built, installed into a fresh environment, run from there.

Only here is nothing editable and no source tree in sight, so this is where packaging slips show: a file that is
missing or too much, an extra that does not resolve, a plugin that is found only because it lies next door.
"""

from __future__ import annotations

import email
import email.message
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MATERIAL = Path(__file__).with_name("wheels")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
BUILT_IN = [re.split(r"[<>=~!\[]", requirement)[0] for requirement in PROJECT["optional-dependencies"]["policies"]]

COMMAND_TIMEOUT_S = 300
STATE_TIMEOUT_S = 20
NO_NETWORK = ("error sending request", "dns error", "failed to fetch", "connection refused", "network is unreachable")


# --- building and installing ---


def clean_environment() -> dict[str, str]:
    """Return the environment without what would lead a fresh installation back to this one."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ROUTER_CORE_", "PYTHON", "COVERAGE_")) and name != "VIRTUAL_ENV"
    }


def uv(*arguments: str | Path) -> str:
    """Run uv and return what it said. Without a registry the test is skipped, except in CI."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("uv is not installed: install the dependency group `dev`")
        pytest.skip("wheels are built and installed by uv: install the dependency group `dev`")
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        env=clean_environment(),
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    if not os.environ.get("CI") and any(sign in done.stderr.lower() for sign in NO_NETWORK):
        pytest.skip(f"no package registry within reach: {done.stderr.strip().splitlines()[-1]}")
    pytest.fail(f"uv {' '.join(map(str, arguments))}\n{done.stderr}", pytrace=False)


@dataclass(frozen=True)
class Installation:
    """A fresh virtual environment."""

    bin: Path

    def run(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run its `router-core` to the end."""
        return subprocess.run(
            [self.bin / "router-core", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd,
            env=clean_environment(),
            check=False,
        )

    @contextmanager
    def serving(self, config: dict[str, Any], cwd: Path) -> Iterator[str]:
        """Run its `router-core serve` under that config, all workers healthy; yield its URL."""
        url = f"http://127.0.0.1:{config['port']}"
        (cwd / "router.yaml").write_text(json.dumps(config))  # JSON is YAML
        command = [self.bin / "router-core", "serve", "--config", "router.yaml"]
        with (cwd / "router.log").open("w") as log:
            process = subprocess.Popen(command, cwd=cwd, env=clean_environment(), stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + STATE_TIMEOUT_S
            while healthy_workers(url) < len(config["worker_urls"]):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the router is not ready:\n{(cwd / 'router.log').read_text()}", pytrace=False)
                time.sleep(0.02)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=STATE_TIMEOUT_S)
            finally:
                process.kill()


def install(folder: Path, dist: Path, *requirements: str) -> Installation:
    uv("venv", "--quiet", "--python", sys.executable, folder)
    installation = Installation(folder / "bin")
    uv("pip", "install", "--quiet", "--python", installation.bin / "python", "--find-links", dist, *requirements)
    return installation


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdists and wheels of the core and all plugins, each wheel built from its sdist, and acme's."""
    dist = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--all-packages", "--out-dir", dist, ROOT)
    uv("build", "--quiet", "--wheel", "--out-dir", dist, MATERIAL / "router-policy-acme")
    return dist


@pytest.fixture(scope="module")
def with_acme(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The core and acme alone: none of our own policies."""
    return install(tmp_path_factory.mktemp("with_acme") / "venv", dist, f"router-core=={VERSION}", "router-policy-acme")


@pytest.fixture(scope="module")
def with_policies(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What most users install."""
    return install(tmp_path_factory.mktemp("with_policies") / "venv", dist, f"router-core[policies]=={VERSION}")


# --- workers and requests ---


class FakeWorker(ThreadingHTTPServer):
    """A worker that answers everything and counts its chats. HTTP/1.0: a connection for each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.chats = 0


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.chats += 1
        message = {"role": "assistant", "content": self.server.url}
        self._answer({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    def _answer(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def workers() -> Iterator[tuple[FakeWorker, FakeWorker]]:
    with FakeWorker() as first, FakeWorker() as second:
        threads = [threading.Thread(target=worker.serve_forever, args=(0.02,)) for worker in (first, second)]
        for thread in threads:
            thread.start()
        yield first, second
        for worker, thread in zip((first, second), threads, strict=True):
            worker.shutdown()
            thread.join()


def healthy_workers(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/readiness", timeout=10) as response:
            return json.load(response)["healthy_workers"]
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return 0


def chat(url: str) -> str:
    """Return what the assistant says: the URL of the worker that answered."""
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["choices"][0]["message"]["content"]


@pytest.fixture
def config(workers: tuple[FakeWorker, FakeWorker]) -> dict[str, Any]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return {"host": "127.0.0.1", "port": port, "worker_urls": [worker.url for worker in workers]}


# --- what is inside ---


def in_wheel(dist: Path, package: str) -> set[str]:
    with zipfile.ZipFile(next(dist.glob(f"{package}-*.whl"))) as wheel:
        return set(wheel.namelist())


def metadata(dist: Path, package: str) -> email.message.Message:
    with zipfile.ZipFile(next(dist.glob(f"{package}-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def source_files(package: Path) -> set[str]:
    return {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_core_wheel_holds_the_package_and_nothing_else(dist):
    files = {name for name in in_wheel(dist, "router_core") if ".dist-info/" not in name}

    assert files == source_files(ROOT / "router_core")
    assert "router_core/py.typed" in files


def test_core_sdist_holds_the_package_and_what_builds_it(dist):
    with tarfile.open(next(dist.glob("router_core-*.tar.gz"))) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}

    outside = {name for name in files if not name.startswith("router_core/")}
    assert files - outside == source_files(ROOT / "router_core")
    assert outside == {"PKG-INFO", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", ".gitignore"}


def test_core_metadata_offers_the_extras(dist):
    core = metadata(dist, "router_core")

    assert {"policies", "testing"} <= set(core.get_all("provides-extra"))
    assert core["license-expression"] == "Apache-2.0"
    assert core["description-content-type"] == "text/markdown"
    requirements = core.get_all("requires-dist")
    unconditional = [requirement for requirement in requirements if "extra ==" not in requirement]
    assert not [
        requirement for requirement in unconditional if "router-policy" in requirement or "pytest" in requirement
    ]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugin_wheel_holds_one_package_and_names_its_policy(dist, plugin):
    package = plugin.replace("-", "_")
    files = {name for name in in_wheel(dist, package) if ".dist-info/" not in name}
    project = tomllib.loads((ROOT / "plugins" / plugin / "pyproject.toml").read_text())["project"]

    assert files == source_files(ROOT / "plugins" / plugin / "src" / package)
    assert f"{package}/py.typed" in files
    policy = package.removeprefix("router_policy_")
    assert project["entry-points"]["router_core.policies"][policy].startswith(f"{package}:")
    assert "router-core<1,>=0.1" in metadata(dist, package).get_all("requires-dist")


# --- what it does once installed ---


def test_installed_third_party_policy_decides(with_acme, workers, config, tmp_path):
    config["policy"] = {"name": "acme", "options": {"position": 1}}

    with with_acme.serving(config, tmp_path) as url:
        answers = [chat(url) for _ in range(4)]

    assert answers == [workers[1].url] * 4
    assert [worker.chats for worker in workers] == [0, 4]


def test_in_house_policy_next_to_the_config_decides(with_acme, workers, config, tmp_path):
    shutil.copy(MATERIAL / "my_module.py", tmp_path)
    config["policy"] = "my_module:MyPolicy"

    with with_acme.serving(config, tmp_path) as url:
        answers = [chat(url) for _ in range(4)]

    assert answers == [workers[1].url] * 4


def test_misspelt_option_of_a_third_party_policy_is_named_at_start(with_acme, config, tmp_path):
    config["policy"] = {"name": "acme", "options": {"positon": 1}}
    (tmp_path / "router.yaml").write_text(json.dumps(config))

    done = with_acme.run("serve", "--config", "router.yaml", cwd=tmp_path)

    assert done.returncode == 2
    assert "policy.options.positon" in done.stderr
    assert "position" in done.stderr.replace("positon", "")
    assert "Traceback" not in done.stderr


def test_policies_lists_a_third_party_policy_with_its_distribution(with_acme, tmp_path):
    done = with_acme.run("policies", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "acme" in line.split())
    assert "router-policy-acme" in line
    assert "1.2.3" in line


def test_default_policy_that_is_not_installed_says_what_to_install(with_acme, config, tmp_path):
    (tmp_path / "router.yaml").write_text(json.dumps(config))

    done = with_acme.run("serve", "--config", "router.yaml", cwd=tmp_path)

    assert done.returncode == 2
    assert "predicted_latency" in done.stderr
    assert "router-core[policies]" in done.stderr
    assert "acme" in done.stderr  # what there is instead
    assert "Traceback" not in done.stderr


def test_policies_extra_brings_every_built_in_policy(with_policies, workers, config, tmp_path):
    listed = with_policies.run("policies", cwd=tmp_path).stdout
    assert [plugin for plugin in BUILT_IN if plugin not in listed] == []

    with with_policies.serving(config, tmp_path) as url:  # the default policy: no `policy` in the config
        assert chat(url) in {worker.url for worker in workers}


def test_uvx_runs_the_router_without_installing_it(dist):
    requirement = f"router-core[policies]=={VERSION}"

    said = uv(
        "tool", "run", "--isolated", "--quiet", "--find-links", dist, "--from", requirement, "router-core", "--version"
    )

    assert VERSION in said
