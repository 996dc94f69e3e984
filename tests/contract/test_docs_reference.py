"""The reference pages say what the code says: generated parts are up to date, written parts complete and not stale."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router_core import api
from router_core.cli.router_server import RouterServer
from router_core.config import load_config
from router_core.contract.hookspecs import PolicySpec
from router_core.contract.pool import PoolContext
from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.plugin_host import discovery
from router_core.plugin_host.discovery import installed_policies, load_policy
from router_core.plugin_host.faults import FaultKind
from router_core.relay.refusal import CODES
from router_core.traffic.endings import ANSWER_TO_ENDING

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
HOOKS = {name: member for name, member in vars(PolicySpec).items() if inspect.isfunction(member)}


def load_generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def page(name):
    return (REFERENCE / name).read_text()


# --- generated parts ---


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.md")), ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path):
    assert path.read_text() == generate.regenerated(path), "run `python docs/generate.py`"


def test_every_generated_part_has_a_place():
    placed = [
        name for path in REFERENCE.glob("*.md") for name in re.findall(r"begin generated: (\S+)", path.read_text())
    ]
    assert sorted(placed) == sorted(generate.REGIONS)


# --- hooks ---


def hook_sections():
    parts = re.split(r"^(#{2,3} .*)$", page("hooks.md"), flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {
        match[1]: (heading, text) for heading, text in pairs if (match := re.fullmatch(r"### `(\w+)\(.*`", heading))
    }


def signature_of(hook):
    signature = inspect.signature(hook)
    names = [name for name in signature.parameters if name != "self"]
    return f"### `{hook.__name__}({', '.join(names)}) -> {signature.return_annotation}`"


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_documented_with_its_signature(name):
    heading, _ = hook_sections()[name]
    assert heading == signature_of(HOOKS[name])


def test_no_hook_is_documented_that_does_not_exist():
    assert list(hook_sections()) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_argument_of_a_hook_is_explained_and_no_other(name):
    _, text = hook_sections()[name]
    explained = re.findall(r"^- `(\w+)`: ", text, flags=re.MULTILINE)
    assert explained == [parameter for parameter in inspect.signature(HOOKS[name]).parameters if parameter != "self"]
    assert re.search(r"^Called ", text, flags=re.MULTILINE), "say when it is called"
    assert re.search(r"^Return ", text, flags=re.MULTILINE), "say what to return"


@pytest.mark.parametrize("name", HOOKS)
def test_the_shipped_policies_that_use_a_hook_are_named(name):
    users = [
        plugin.name
        for plugin in installed_policies().plugins
        if plugin.name in generate.BUILT_IN and hasattr(load_policy(plugin.name).cls, name)
    ]
    expected = ", ".join(f"`{user}`" for user in users) or "none of the built-in policies"
    own = re.search(r"^Used by: ([^.]*)\.", hook_sections()[name][1], flags=re.MULTILINE)
    shared = re.search(rf"^`{name}` is used by: ([^.]*)\.", page("hooks.md"), flags=re.MULTILINE)
    assert (own or shared)[1] == expected


def documented_attributes(title):
    section = page("hooks.md").partition(f"\n### {title}\n")[2].partition("\n#")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word for cell in first_cells for word in re.findall(r"`(\w+)", cell)}


def public(names):
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Worker", Worker.__slots__),
        ("RoutingRequest", public(vars(RoutingRequest)) - {"next_attempt", "reason", "reason_parts"}),
        ("RequestOutcome", {*RequestOutcome._fields, "is_success"}),
        ("PoolContext", public(vars(PoolContext))),
    ],
)
def test_every_attribute_of_what_hooks_are_given_is_documented(title, names):
    assert documented_attributes(title) == set(names)


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_name_is_in_the_hook_reference(name):
    assert re.search(rf"\b{name}\b", page("hooks.md")), f"say what {name} is"


def test_every_entry_point_group_is_promised():
    groups = {value for name, value in vars(discovery).items() if name.endswith("_GROUP")}
    assert groups <= set(re.findall(r"`(router_core\.\w+)`", (ROOT / "VERSIONING.md").read_text()))


# --- HTTP ---


_ANSWERING = ("error_body", "error_response", "_refuse", "refuse", "_error", "_answer")


def codes_in_source():
    """Return the error codes that stand as constants in a call that makes an error body."""
    found = set()
    paths = [path for part in ("relay", "traffic", "control") for path in (ROOT / "router_core" / part).rglob("*.py")]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", ""))
            if isinstance(node, ast.Call) and name in _ANSWERING:
                texts = [each.value for argument in node.args for each in ast.walk(argument) if is_code(each)]
                found.update(texts)
            if isinstance(node, ast.Call) and name == "BadRequestError":
                found.update(word.value.value for word in node.keywords if word.arg == "code" and is_code(word.value))
    return found


def is_code(node):
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[a-z]+(_[a-z]+)+|[A-Z]+(_[A-Z]+)+", node.value)
    )


def test_every_error_code_is_documented():
    documented = set(re.findall(r"^\| \d{3} \| `(\w+)`", page("http.md"), flags=re.MULTILINE))
    answered = set(CODES.values()) | {answer.code for answer in ANSWER_TO_ENDING.values()} | codes_in_source()
    assert documented == answered


def test_every_status_stands_with_its_code():
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)`", page("http.md"), flags=re.MULTILINE))
    for status, code in CODES.items():
        assert (str(status), code) in rows
    for answer in ANSWER_TO_ENDING.values():
        assert (str(answer.status), answer.code) in rows


def test_every_path_the_router_answers_is_documented():
    own = page("http.md").partition("\n## Answered by the router\n")[2].partition("\n## Errors\n")[0]
    documented = set(re.findall(r"`(?:GET|POST|PUT|PATCH|DELETE) (/[^\s`?]+)", own))
    assert documented == set(generate.control_paths())


# --- metrics ---


def test_kinds_of_faults_are_documented():
    row = next(line for line in page("metrics.md").splitlines() if line.startswith("| `kind` of faults"))
    assert set(re.findall(r"`(\w+)`", row)) - {"kind"} == {kind.value for kind in FaultKind}


def documented_metrics():
    rows = re.findall(r"^\| (`router_core_.*?) \| (\w+) \| (.*?) \|", page("metrics.md"), flags=re.MULTILINE)
    return {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for names, kind, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }


async def test_every_metric_of_a_running_router_is_documented(simulated_engines):
    async with simulated_engines(2) as engines:
        flags = {"host": "127.0.0.1", "port": "0", "worker_urls": [engine.url for engine in engines]}
        flags |= {"policy": "cache_aware", "log_level": "error"}
        server = RouterServer(load_config(path=None, environ={}, flags=flags))
        await server.start()
        try:
            async with aiohttp.ClientSession(server.url) as session, asyncio.timeout(20):
                body = {"model": "simulated-model", "messages": [{"role": "user", "content": "Hello"}]}
                exposition = ""
                while "cache_tree_chars" not in exposition:  # set by a timer of the policy's, once a second
                    async with session.post("/v1/chat/completions", json=body):
                        pass
                    async with session.get("/metrics") as response:
                        exposition = await response.text()
        finally:
            await server.stop()
    documented = documented_metrics()
    for family in text_string_to_metric_families(exposition):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name in documented, f"{name} is not in docs/reference/metrics.md"
        kind, labels = documented[name]
        assert family.type == kind
        if family.samples:
            assert {label for sample in family.samples for label in sample.labels} - {"le"} == labels, name
