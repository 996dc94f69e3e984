"""What alerts watch is there from the start, at 0: a series that appears with its first burst has not increased."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from .support import running_router

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"
OF_WORKERS = {"router_core_requests_total", "router_core_policy_decision_seconds_bucket"}
"""They begin with a worker's first requests; alerts on them look at minutes of traffic."""


def alerted() -> list[tuple[str, dict[str, list[str]]]]:
    """Return each counter whose growth an alert watches, and the values of labels that it picks."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    found = []
    for rule in rules:
        for name, selector in re.findall(r"(?:rate|increase)\((router_core_\w+)(?:\{(.*?)\})?\[", rule["expr"]):
            if name not in OF_WORKERS:
                picked = re.findall(r'(\w+)=~?"(.*?)"', re.sub(r'\w+!=".*?"', "", selector))
                found.append((name, {label: values.split("|") for label, values in picked}))
    return found


async def test_every_counter_that_an_alert_watches_begins_at_0(simulated_engine):
    limited = {"max_concurrent_requests": 4}
    async with simulated_engine() as engine, running_router([engine], admission=limited) as router:
        metrics = await router.metrics()
    assert alerted()
    for name, picked in alerted():
        samples = metrics[name]
        assert {sample.value for sample in samples} == {0}, name
        for label, values in picked.items():
            assert set(values) <= {sample.labels[label] for sample in samples}, (name, label)


async def test_other_troubles_begin_at_0(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        metrics = await router.metrics()
    for name in (
        *("refused_requests_total", "unauthorized_requests_total", "tls_handshake_failures_total"),
        *("client_stalls_total", "buffers_full_requests_total", "proxied_unknown_requests_total"),
    ):
        assert {sample.value for sample in metrics[f"router_core_{name}"]} == {0}, name
