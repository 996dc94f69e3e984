from __future__ import annotations

import pytest

from router_core.simulate import FleetPlan, Scenario, Trace, TraceRequest


@pytest.fixture
def make_scenario():
    """Return what makes a scenario of requests given as (at_s, prompt_tokens, output_tokens, blocks)."""

    def make(rows, *, workers=2, block_tokens=100, fleet=None, **options):
        requests = tuple(TraceRequest(*row) for row in rows)
        trace = Trace("test", block_tokens, requests)
        return Scenario(trace, fleet or FleetPlan.uniform(workers), **options)

    return make
