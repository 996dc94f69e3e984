"""What is in `deploy/` is valid and speaks of metrics that the router really has."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from router_core.observability.registry import MetricsRegistry

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
SERIES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not there (Debian, Ubuntu: apt-get install prometheus)"
)


def load_generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def series_and_labels() -> dict[str, set[str]]:
    """Return every series a router may expose, with its labels."""
    return {
        name + suffix: set(labels) | ({"le"} if suffix == "_bucket" else set())
        for metric, name, labels in load_generator().exposed()
        for suffix in SERIES[metric.type]
    }


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[tuple[str, str]]:
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


@pytest.mark.parametrize(("place", "expression"), expressions())
def test_expressions_speak_of_metrics_and_labels_that_exist(place: str, expression: str):
    known = series_and_labels()
    names = re.findall(r"\brouter_core_\w+", expression)
    assert names or "up{" in expression, place
    assert not [name for name in names if name not in known], place
    for name, selector in re.findall(r"\b(router_core_\w+)\{(.*?)\}", expression):
        given = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) - {"instance"}
        assert given <= known[name], f"{place}: {name} has no label {given - known[name]}"
    labels = {label for by in re.findall(r"\bby \((.*?)\)", expression) for label in by.split(", ")} - {"instance"}
    if names:
        assert labels <= set.union(*(known[name] for name in names)), place


def test_a_dashboard_is_whole():
    assert DASHBOARDS
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        assert board["uid"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
        assert len(places) == len(ids)
        variables = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) <= variables


def test_every_alert_has_a_test_that_raises_it_and_one_that_does_not():
    cases = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())["tests"]
    checked = [case for test in cases for case in test["alert_rule_test"]]
    for rule in rules():
        raised = {bool(case.get("exp_alerts")) for case in checked if case["alertname"] == rule["alert"]}
        assert raised == {True, False}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_accepts_the_rules(arguments: tuple[str, ...]):
    done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("compat", [(), ("smg", "vllm_router")])
def test_promtool_finds_nothing_to_complain_of_in_the_metrics(compat: tuple[str, ...]):
    registry: MetricsRegistry = load_generator().full_registry(*compat)
    exposition, _ = asyncio.run(registry.render())
    done = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
