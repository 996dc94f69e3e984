"""What stands in the documents works: every example runs, every command parses, every config is valid, no link is dead.

A fenced block of Python is run as a module of its own. A comment on the line above says otherwise:

    <!-- file: docs/examples/in-house/my_policy.py -->    the block is that file, which other tests run
    <!-- wrapper -->  <!-- observer -->                   the class in it is one, not a policy
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from router_core.cli.main import main
from router_core.config import RouterConfig, load_config
from router_core.config.auth import KeyFile
from router_core.contract.hookspecs import PROJECT_NAME
from router_core.plugin_host.slips import find_slips
from router_core.testing.conformance import Subject, check_never_picks_a_departed_worker, check_survives_churn
from router_core.testing.engine_process import _parser as simulated_engine_parser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("plugins/*/README.md"),
    ]
)
FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
NAMED_FILE = re.compile(r"`([\w/.-]+\.py)`")


class Block(NamedTuple):
    page: Path
    line: int
    note: str
    language: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages):
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start()) + 1
                yield Block(page, line, match["note"] or "", match["language"], match["text"])


ALL = tuple(blocks("python", "yaml", "toml", "console", "json", "promql"))
PYTHON = [block for block in ALL if block.language == "python" and not block.note.startswith("file: ")]
COPIES = [block for block in ALL if block.note.startswith("file: ")]
CONFIGS = [block for block in ALL if block.language in ("yaml", "toml")]
COMMANDS = [
    (str(block), line[2:])
    for block in ALL
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


# --- code ---


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block, tmp_path, monkeypatch):
    path = tmp_path / "example_of_the_docs.py"
    path.write_text(block.text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    kind = block.note if block.note in ("wrapper", "observer") else "policy"
    for cls in vars(module).values():
        if inspect.isclass(cls) and cls.__module__ == path.stem and has_hooks(cls):
            assert find_slips(cls, kind=kind) == []


def has_hooks(cls):
    return any(hasattr(member, f"{PROJECT_NAME}_impl") for member in vars(cls).values())


@pytest.mark.parametrize("block", COPIES, ids=str)
def test_a_block_that_is_a_file_is_that_file(block):
    assert block.text == (ROOT / block.note.removeprefix("file: ")).read_text()


def test_the_policies_of_the_documents_are_sound(tmp_path):
    """Run the examples of the hook reference through the kit's plainest checks: they are there to be copied."""
    for number, block in enumerate(block for block in PYTHON if block.page.name == "hooks.md" and not block.note):
        path = tmp_path / f"example_{number}.py"
        path.write_text(block.text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == path.stem and has_hooks(cls):
                check_survives_churn(Subject(cls))
                check_never_picks_a_departed_worker(Subject(cls))


# --- configs ---


@pytest.mark.parametrize("block", CONFIGS, ids=str)
def test_config_is_valid(block, tmp_path):
    content = yaml.safe_load(block.text) if block.language == "yaml" else tomllib.loads(block.text)
    if isinstance(content, dict) and content.keys() == {"keys"}:
        assert KeyFile.model_validate(content).keys
        return
    if not isinstance(content, dict) or not content.keys() & RouterConfig.model_fields.keys():
        return  # somebody else's: a pod, a pyproject.toml
    path = tmp_path / f"router.{block.language}"
    path.write_text(block.text)
    if "keys_file" in content.get("auth", {}):
        (tmp_path / content["auth"]["keys_file"]).touch()
    flags = {} if content.keys() & {"worker_urls", "pd"} else {"worker_urls": ["http://a:8000"]}
    load_config(path=path, environ={}, flags=flags)


# --- commands ---


@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=[where for where, _ in COMMANDS])
def test_command_is_one_that_exists(where, command, capsys):
    words = shlex.split(command, comments=True)
    program = Path(words[0]).name
    if program == "make":
        assert set(words[1:]) <= MAKE_TARGETS
    elif program == "uvx":
        words = words[words.index("router-core") :]
        program = "router-core"
    if program == "router-core":
        assert main([words[1], "--help"]) == 0
        flags = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out))
        assert {word.partition("=")[0] for word in words[2:] if word.startswith("--")} <= flags
    elif program == "python" and words[1:3] == ["-m", "router_core.testing.simulated_engine"]:
        simulated_engine_parser().parse_args(words[3:])


# --- links ---


def anchors(page):
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def all_links():
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(all_links()), ids=lambda value: str(getattr(value, "name", value)))
def test_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    destination = (page.parent / path).resolve() if path else page
    assert destination.exists()
    if anchor:
        assert anchor in anchors(destination)


def test_every_source_file_that_is_named_exists():
    folders = [ROOT / name for name in ("router_core", "plugins", "tests", "docs")]
    files = [f"/{file.relative_to(ROOT)}" for folder in folders for file in folder.rglob("*.py")]
    pages = (ROOT / "docs" / "explanation").glob("*.md")
    named = {(page.name, name) for page in pages for name in NAMED_FILE.findall(page.read_text())}
    assert named
    assert {each for each in named if not any(file.endswith(f"/{each[1]}") for file in files)} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(ROOT / "docs")], ids=lambda p: p.name)
def test_page_is_reached_from_the_index(page):
    reached, todo = set(), [ROOT / "docs" / "index.md"]
    while todo:
        here = todo.pop()
        if here in reached or here.suffix != ".md" or not here.exists():
            continue
        reached.add(here)
        text = FENCE.sub("", here.read_text())
        todo += [(here.parent / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)\s:]+)\)", text)]
    assert page in reached


# --- metrics ---


def test_every_metric_in_the_documents_exists():
    known = set(re.findall(r"`(router_core_\w+)`", (ROOT / "docs/reference/metrics.md").read_text()))
    known |= {
        "router_core_policy",
        "router_core_answers_total",
    }  # what a command looks for; an example of a reader's own
    for page in PAGES:
        for name in re.findall(r"\brouter_core_\w+", page.read_text()):
            assert {name, re.sub(r"_(bucket|sum|count)$", "", name)} & known, f"{page.name}: {name}"
