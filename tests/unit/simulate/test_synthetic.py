"""Made-up workloads: repeatable, and each with its trait."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from router_core.contract.errors import StartupError
from router_core.simulate import synthetic
from router_core.simulate.statistics import describe, statistics
from router_core.simulate.synthetic import WORKLOADS


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_has_as_many_requests_as_told_and_repeats_itself(name):
    trace = synthetic(name, requests=101)
    assert len(trace.requests) == 101
    assert trace == synthetic(name, requests=101)
    assert trace != synthetic(name, requests=101, seed=1)
    assert all(len(one.blocks) * trace.block_tokens <= one.prompt_tokens for one in trace.requests)
    assert f"{name}\n" in describe(trace)


def test_a_turn_begins_with_the_turn_before_it():
    trace = synthetic("sessions", requests=40, turns=5)
    for session in trace.sessions:
        assert len(session) == 5
        for before, after in pairwise(session):
            assert after.blocks[: len(before.blocks)] == before.blocks
            assert after.prompt_tokens > before.prompt_tokens


def test_a_hot_prompt_is_as_hot_as_told():
    assert statistics(synthetic("hot_prompt", hot_share=0.7))["hottest_block_share"] == pytest.approx(0.7, abs=0.05)


def test_groups_share_their_prompt_and_their_moment():
    trace = synthetic("rl_groups", requests=64, group=8)
    assert set(Counter(one.at_s for one in trace.requests).values()) == {8}


def test_bursts_are_burstier_than_chance():
    assert statistics(synthetic("bursts"))["burstiness"] > 1.5
    assert statistics(synthetic("hot_prompt"))["burstiness"] == pytest.approx(1, abs=0.2)


def test_an_unknown_workload_or_option_is_an_error_that_says_what_there_is():
    with pytest.raises(StartupError, match="rl_groups"):
        synthetic("rl_grups")
    with pytest.raises(StartupError, match="unknown option; it takes requests"):
        synthetic("bursts", turns=3)
    with pytest.raises(StartupError, match="requests"):
        synthetic("bursts", requests=0)
