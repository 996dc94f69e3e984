"""The lines of the simulator's pages do what the pages say: each is run on a small trace. So does the table of JSON."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from router_core.cli.main import main
from router_core.simulate import synthetic, write_trace
from router_core.simulate.record import FailureReason
from router_core.simulate.summary import FIGURES

ROOT = Path(__file__).parents[2]
PAGES = ("docs/howto/simulate-a-policy.md", "docs/howto/traces.md", "docs/howto/prefill-decode.md")
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
COMMANDS = [
    (page, command)
    for page, text in TEXTS.items()
    for command in re.findall(r"^\$ router-core ((?:simulate|trace) .*)$", text, re.MULTILINE)
]
FLAGS = re.findall(r"^\| `(--.*?)` \|", TEXTS[PAGES[0]], re.MULTILINE)
ROWS = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", TEXTS[PAGES[0]], re.MULTILINE))
SMALL = ["--seeds", "1", "--jobs", "1", "--requests", "8"]

MY_MODULE = """
from router_core.api import hookimpl
class Guard:
    @hookimpl(wrapper=True)
    def select_single(self):
        return (yield)
class Audit:
    @hookimpl
    def on_request_complete(self): ...
"""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """Be where the files are that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("my_module.py").write_text(MY_MODULE)
    trace = synthetic("shared_prefixes", requests=40)
    for name in ("trace.jsonl.gz", "conversation_trace.jsonl", "sessions.jsonl.gz"):
        write_trace(trace, name)
    Path("requests.csv").write_text("timestamp,input_tokens,output_tokens\n0,10,1\n1,20,2\n")
    turns = [{"t": 0, "in": 640, "out": 5, "hash_ids": list(range(10))}]
    Path("kv-cache-tester/traces").mkdir(parents=True)
    Path("kv-cache-tester/traces/a.json").write_text(json.dumps({"block_size": 64, "requests": turns}))


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_a_command_of_the_pages_runs(page, command, capsys):
    words = shlex.split(command)
    assert main(words + SMALL * (words[0] == "simulate")) == 0, capsys.readouterr().err


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_the_pages_are_taken(flags, capsys):
    words = ["simulate", "trace.jsonl.gz", *SMALL, *shlex.split(flags)]
    words += ["--prefill", "h100_8b", "--decode", "h100_8b"] * (" + " in flags)
    assert main(words + ["--policy", "random"] * ("--policy" not in flags)) == 0, capsys.readouterr().err


def test_the_table_of_json_names_every_figure_with_its_unit():
    units = {"s": "s", "share": "0 to 1", "1/s": "per s", "us": "us"}
    assert len(COMMANDS) >= 7
    assert len(FLAGS) >= 9
    named = {figure.name: ROWS.get(figure.name) for figure in FIGURES}
    assert named == {
        figure.name: units.get(figure.unit, "count" if figure.name != "imbalance" else "ratio") for figure in FIGURES
    }
    for reason in FailureReason:
        assert f"`{reason}`" in TEXTS[PAGES[0]]


def test_the_page_names_every_key_of_the_json(capsys):
    assert main(["simulate", "trace.jsonl.gz", *SMALL, "--policy", "random", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (policy,) = report.pop("policies")
    keys = {*report, *report["trace"], *report["slo"], *report["engines"][0], *policy, *policy["figures"]["failed"]}
    assert {key for key in keys if f"`{key}`" not in TEXTS[PAGES[0]]} == set()
    assert set(policy["figures"]) <= set(ROWS)
