"""`launch` against sglang-router 0.3.2: the same flags and defaults, and a fate for each.

`launch/sglang_router_0_3_2.json` is what that release's parser and dataclass hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from router_core.cli.launch.flags import Composes, Moot, PolicyOption, Refused, Sets, flags_of
from router_core.config import iter_fields
from router_core.launch_router import RouterArgs
from router_core.plugin_host.discovery import installed_policies

PEER = json.loads((Path(__file__).parent / "launch/sglang_router_0_3_2.json").read_text())
FLAGS = {each.option: each for each in flags_of(RouterArgs)}
PATHS = {field.path for field in iter_fields()} | {field.path.rpartition(".")[0] for field in iter_fields()}
OPEN_ENDED = ("pd.options.", "policy.options")


def test_every_flag_is_there_and_no_other_but_those_marked_as_ours():
    assert {name for name, each in FLAGS.items() if not each.is_ours} == set(PEER["flags"])


@pytest.mark.parametrize("name", sorted(PEER["flags"]))
def test_a_flag_has_the_default_of_the_original(name):
    parser = argparse.ArgumentParser()
    RouterArgs.add_cli_args(parser)
    (action,) = (action for action in parser._actions if name in action.option_strings)
    expected = PEER["flags"][name]
    assert (action.default or None) == (expected["default"] or None)
    assert (action.nargs != 0) is expected["takes_value"]


def test_the_dataclass_has_the_fields_and_defaults_of_the_original():
    ours = dataclasses.asdict(RouterArgs())
    assert {name: ours.get(name) for name in PEER["fields"]} == PEER["fields"]


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
