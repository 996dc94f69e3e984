"""The image, the manifests and the unit in `deploy/` fit the router: its paths, ports, flags, settings and times."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from router_core.cli.main import _COMMANDS
from router_core.config import RouterConfig, iter_fields
from router_core.fleet.membership.kubernetes import KubernetesMembership

from .test_deploy import load_generator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()
UNIT = (DEPLOY / "systemd" / "router-core.service").read_text()


def objects() -> dict[str, dict]:
    found = [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())]
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


def settings() -> RouterConfig:
    return RouterConfig.model_validate(yaml.safe_load(objects()["ConfigMap"]["data"]["router.yaml"]))


def pod() -> dict:
    return objects()["Deployment"]["spec"]["template"]["spec"]


def container() -> dict:
    (only,) = pod()["containers"]
    return only


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def sources_copied() -> set[str]:
    """Return what the image is built from."""
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M)
    return {source for sources in copied for source in sources.split()}


def check_command(arguments: list[str]) -> None:
    """See that the router's own parser takes a command line."""
    command, *rest = arguments
    assert command in _COMMANDS
    flags = {field.flag for field in iter_fields() if field.flag} | {"--config"}
    assert {part for part in rest if part.startswith("--")} <= flags


def test_the_settings_are_the_routers_and_their_source_takes_its_options():
    (source,) = settings().membership
    options = KubernetesMembership.Config.model_validate(source.options)
    assert (options.mode, options.namespace) == ("pods", objects()["Deployment"]["metadata"]["namespace"])


def test_probes_ask_for_paths_the_router_answers_on_ports_it_has():
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": settings().port, "metrics": settings().prometheus_port}
    paths = load_generator().control_paths()
    probes = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert all(probe["path"] in paths and probe["port"] == "http" for probe in probes.values())
    assert probes["readinessProbe"]["path"] == "/readiness"
    assert probes["livenessProbe"]["path"] == "/liveness"


def test_a_pod_has_more_time_to_end_than_running_requests():
    limits = settings().limits
    assert pod()["terminationGracePeriodSeconds"] > limits.shutdown_settle_s + limits.shutdown_grace_s
    assert limits.shutdown_settle_s > container()["readinessProbe"]["periodSeconds"]


def test_the_container_is_started_as_the_router_wants_it():
    check_command(container()["args"])
    (mount,) = container()["volumeMounts"]
    assert container()["args"][-1] == f"{mount['mountPath']}/router.yaml"


def test_names_and_labels_meet():
    of = objects()
    labels = of["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert of["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert of["Service"]["spec"]["selector"] == of["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert of["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == of["Service"]["metadata"]["labels"]
    ports = {port["name"]: port for port in of["Service"]["spec"]["ports"]}
    assert {port["targetPort"] for port in ports.values()} == {port["name"] for port in container()["ports"]}
    (endpoint,) = of["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] in ports
    assert endpoint["path"] in load_generator().control_paths()
    assert {each["metadata"]["namespace"] for each in of.values()} == {"models"}


def test_the_account_may_list_and_watch_pods_and_nothing_else():
    of = objects()
    name = of["ServiceAccount"]["metadata"]["name"]
    assert pod()["serviceAccountName"] == name
    assert of["Role"]["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    assert of["RoleBinding"]["roleRef"]["name"] == of["Role"]["metadata"]["name"]
    assert [subject["name"] for subject in of["RoleBinding"]["subjects"]] == [name]


def test_the_image_runs_the_router_without_root():
    entry = re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", DOCKERFILE, re.M)
    program, *arguments = [part for each in entry for part in yaml.safe_load(each)]
    assert program in project()["scripts"]
    check_command(arguments)
    assert f"USER {pod()['securityContext']['runAsUser']}:" in DOCKERFILE
    (ports,) = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.M)
    assert ports.split() == [str(settings().port), str(settings().prometheus_port)]
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "RUN" not in final
    extras = re.search(r"'\.\[(.*?)\]'", DOCKERFILE)[1].split(",")
    assert set(extras) <= project()["optional-dependencies"].keys()


def test_the_image_is_built_from_files_that_exist():
    assert all((ROOT / source).exists() for source in sources_copied())
    kept = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().split("\n")
    assert sources_copied() == {line[1:] for line in kept if line.startswith("!")}


@pytest.mark.parametrize(("asked", "is_well"), [("/health", True), ("/nowhere", False)])
async def test_the_images_health_check_tells_an_answer_from_an_error(asked, is_well, simulated_engine):
    (check,) = re.findall(r"^  CMD (\[.*\])$", DOCKERFILE, re.M)
    _, option, program = yaml.safe_load(check)
    path = re.search(r"'(/\w+)'", program)[1]
    assert path in load_generator().control_paths()
    async with simulated_engine() as engine:
        port = engine.url.rpartition(":")[2]
        program = program.replace(path, asked)
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, option, program), env={"ROUTER_CORE_PORT": port}, stderr=subprocess.DEVNULL
        )
        assert (await done.wait() == 0) is is_well


def test_the_unit_starts_the_router_and_gives_it_time_to_end():
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.M)
    program, *arguments = shlex.split(line)
    assert Path(program).name in project()["scripts"]
    check_command(arguments)
    limits = RouterConfig().limits
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)[1]) > limits.shutdown_settle_s + limits.shutdown_grace_s
    assert "ExecReload=/bin/kill -HUP $MAINPID" in UNIT
