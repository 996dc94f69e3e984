"""`launch` against sglang-router 0.3.2 and vllm-router 0.1.17: their flags and defaults, and a fate for each.

`launch/*.json` is what those releases' parsers and dataclasses hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from router_core.cli.launch.flags import Composes, Moot, PolicyOption, Refused, Sets, flags_of
from router_core.cli.launch.settings import config_from
from router_core.cli.router_server import RouterServer
from router_core.config import iter_fields
from router_core.contract.errors import StartupError
from router_core.launch_router import RouterArgs
from router_core.plugin_host.discovery import installed_policies

PEER = json.loads((Path(__file__).parent / "launch/sglang_router_0_3_2.json").read_text())
VLLM = json.loads((Path(__file__).parent / "launch/vllm_router_0_1_17.json").read_text())
VLLM_ALONE = {name: flag for name, flag in VLLM["flags"].items() if name not in PEER["flags"]}
MIGRATION = (Path(__file__).parents[2] / "docs/howto/migrate-from-sglang-router.md").read_text()
FLAGS = {each.option: each for each in flags_of(RouterArgs)}
PATHS = {field.path for field in iter_fields()} | {field.path.rpartition(".")[0] for field in iter_fields()}
OPEN_ENDED = ("pd.options.", "policy.options")


@pytest.mark.parametrize(("origin", "flags"), [("sglang-router", PEER["flags"]), ("vllm-router", VLLM_ALONE)])
def test_every_flag_is_there_and_no_other_is_taken_for_theirs(origin, flags):
    assert {name for name, each in FLAGS.items() if each.origin == origin} == set(flags)


@pytest.mark.parametrize(("name", "expected"), sorted((PEER["flags"] | VLLM_ALONE).items()))
def test_a_flag_has_the_default_of_the_original(name, expected):
    parser = argparse.ArgumentParser()
    RouterArgs.add_cli_args(parser)
    (action,) = (action for action in parser._actions if name in action.option_strings)
    assert (action.default or None) == (expected["default"] or None)
    assert (action.nargs != 0) is expected["takes_value"]


@pytest.mark.parametrize("name", sorted(VLLM["flags"].keys() & PEER["flags"].keys()))
def test_a_default_that_is_another_in_vllm_router_stands_on_the_migration_page(name):
    ours, theirs = PEER["flags"][name]["default"], VLLM["flags"][name]["default"]
    if (ours or None) != (theirs or None):
        assert f"| `{name}` | `{theirs}` | `{ours}` |" in MIGRATION


@pytest.mark.parametrize("name", [name for name, flag in VLLM["flags"].items() if "choices" in flag])
def test_what_vllm_router_lets_choose_from_is_taken_or_has_a_sentence(name, capsys):
    for value in VLLM["flags"][name]["choices"]:
        parser = argparse.ArgumentParser()
        RouterArgs.add_cli_args(parser)
        pairs = ("--vllm-pd-disaggregation", "--prefill", "http://p:1", "--decode", "http://d:1")
        arguments = RouterArgs.from_cli_args(parser.parse_args([*pairs, name, value]))
        try:
            RouterServer(config_from(arguments))
        except StartupError as error:
            (sentence,) = error.problems
            assert sentence.startswith(f"{name}")
            assert "pip install" not in sentence


def test_the_dataclass_has_the_fields_and_defaults_of_the_original():
    ours = dataclasses.asdict(RouterArgs())
    assert {name: ours.get(name) for name in PEER["fields"]} == PEER["fields"]
    alone = {name: value for name, value in VLLM["fields"].items() if name not in PEER["fields"]}
    assert {name: ours.get(name) for name in alone} == alone


@pytest.mark.parametrize("each", FLAGS.values(), ids=FLAGS)
def test_a_flag_has_a_fate_that_the_router_can_fulfil(each):
    match each.fate:
        case Sets(path=path):
            assert path in PATHS or path.startswith(OPEN_ENDED)
        case Composes(paths=paths):
            for path in paths:
                assert path in PATHS or path.startswith(OPEN_ENDED)
        case PolicyOption(policies=policies):
            assert {plugin.name for plugin in installed_policies().plugins} >= set(policies)
        case Moot(reason=text) | Refused(remedy=text):
            assert len(text.split()) > 3
