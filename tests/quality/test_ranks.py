"""Policies rank on three small workloads as they always did; the same for whoever runs it, for the simulator is exact.

When a change moves a rank on purpose, the order below changes with it, and `make quality` shows what it means at size.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from router_core.simulate import FleetPlan, Scenario, compare, synthetic

PREFIXES = Scenario(
    synthetic("shared_prefixes", requests=2000, prefixes=120), FleetPlan.uniform(8, cache_tokens=100_000), rate=50
)
"""Popular documents that fit into the fleet's caches, not into one."""

SESSIONS = Scenario(
    synthetic("sessions", requests=1500, turns=10), FleetPlan.uniform(4, cache_tokens=150_000), rate=1.4
)
"""Conversations before a fleet that is rather busy, a few of them long."""

HOT_PROMPT = Scenario(synthetic("hot_prompt", requests=2000), FleetPlan.uniform(8, cache_tokens=100_000), rate=49)
"""A prompt that is most of the traffic: whoever leaves it on the workers that had it first falls behind."""


@pytest.mark.parametrize(
    ("scenario", "best_first"),
    [
        (PREFIXES, ["predicted_latency", "weighted", "lmetric", "consistent_hash", "random"]),
        (SESSIONS, ["predicted_latency", "consistent_hash", "power_of_two", "random", "cache_aware"]),
        (HOT_PROMPT, ["predicted_latency", "cache_aware", "random"]),
    ],
    ids=["shared_prefixes", "sessions", "hot_prompt"],
)
def test_no_policy_falls_behind_one_that_was_worse(scenario, best_first):
    result = compare(scenario, [*best_first, "oracle_pooled"], seeds=2)
    p90_s = {policy: result[policy].mean("ttft_p90") for policy in best_first}
    assert sorted(p90_s, key=p90_s.__getitem__) == best_first, p90_s
    for better, worse in pairwise(best_first):
        assert p90_s[worse] > 1.1 * p90_s[better], f"{better} and {worse} are too close to tell: {p90_s}"
    assert result[best_first[0]].mean("hit_rate") > 0.91 * result["oracle_pooled"].mean("hit_rate")
