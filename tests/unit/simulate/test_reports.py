"""Figures, spreads and the reports made of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from router_core.api import hookimpl
from router_core.contract.errors import StartupError
from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import WorkerRole
from router_core.simulate import Contender, Failure, FleetPlan, Scenario, Slo, Spread, compare, summarise, synthetic
from router_core.simulate.record import RequestRecord, RunRecord, Sample
from router_core.simulate.report_html import html_report
from router_core.simulate.report_json import json_report
from router_core.simulate.report_plots import kinds
from router_core.simulate.report_text import shown, text_report
from router_core.simulate.saturation import cached_saturation_rate, saturation_rate
from router_core.simulate.summary import FIGURES
from router_core.simulate.svg import Scale

ROLES = (WorkerRole.REGULAR,) * 2


def run_of(*rows):
    record = RunRecord("p", 0, 1.0, ROLES, busy_s=[4.0, 6.0], ended_s=10.0, decisions=4, decision_s=1e-3)
    for index, (arrived_s, first_s, ended_s, tokens, cached) in enumerate(rows):
        record.requests.append(
            RequestRecord(index, arrived_s, tokens, 11, 0, -1, cached, first_s, ended_s, OutcomeStatus.SUCCESS)
        )
    record.samples = [Sample(1.0, (2, 0), (1, 1)), Sample(2.0, (0, 0), (0, 0))]
    return record


def test_figures_are_what_their_names_say():
    summary = summarise(
        [run_of((0, 1, 3, 100, 50), (2, 5, 6, 300, 50))], slo=Slo(ttft_s=2.0, inter_token_s=0.2), warm_up=0.0
    )
    assert summary.mean("hit_rate") == 0.25
    assert summary.mean("ttft_mean") == 2.0
    assert summary.mean("e2e_mean") == 3.5
    assert summary.mean("inter_token_mean") == pytest.approx(0.15)
    assert summary.mean("goodput") == 0.5
    assert summary.mean("utilisation") == 0.5
    assert summary.mean("imbalance") == pytest.approx(3 * 2 / 4)
    assert summary.mean("queue_max") == 2
    assert summary.mean("decision_us") == pytest.approx(250)


def test_the_first_arrivals_are_left_out():
    summary = summarise([run_of((0, 9, 9, 10, 0), *[(i, i + 1, i + 2, 10, 0) for i in range(1, 10)])], warm_up=0.1)
    assert summary.mean("ttft_mean") == 1.0


def test_a_failed_request_counts_as_failed_and_not_as_fast():
    record = run_of((0, 1, 2, 10, 0), (0, -1, 0.1, 10, 0))
    record.requests[1].status = OutcomeStatus.ERROR
    summary = summarise([record], warm_up=0.0)
    assert (summary.mean("failed"), summary.mean("goodput"), summary.mean("ttft_mean")) == (1, 0.5, 1.0)


def test_the_spread_of_several_runs_is_kept():
    summary = summarise([run_of((0, 1, 3, 10, 0)), run_of((0, 2, 4, 10, 0))], warm_up=0.0)
    assert summary["ttft_mean"] == Spread(1.5, 1.0, 2.0)
    assert [run["ttft_mean"] for run in summary.runs] == [1.0, 2.0]


@pytest.fixture(scope="module")
def comparison():
    scenario = Scenario(synthetic("shared_prefixes", requests=120, rate=20), FleetPlan.uniform(2))
    return compare(scenario, ["random", "oracle_pooled", Contender("round_robin", label="<x>")], seeds=2)


def test_the_table_names_policies_figures_and_the_best(comparison):
    text = text_report(comparison)
    assert "shared_prefixes: 120 requests" in text
    assert re.search(r"^random .*\d", text, re.MULTILINE)
    assert "*" in text
    assert not re.search(r"^oracle_pooled.*\*", text, re.MULTILINE)


def test_the_json_holds_every_run(comparison):
    report = json.loads(json.dumps(json_report(comparison)))
    assert [policy["policy"] for policy in report["policies"]] == ["random", "oracle_pooled", "<x>"]
    for policy in report["policies"]:
        for figure in policy["figures"].values():
            assert len(figure["runs"]) == 2
            assert figure["low"] <= figure["mean"] <= figure["high"]


def test_the_page_needs_nothing_else_and_escapes_names(comparison):
    page = html_report(comparison)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<x>" not in page
    assert "&lt;x&gt;" in page
    assert "prefers-color-scheme: dark" in page
    drawings = re.findall(r"<svg.*?</svg>", page)
    assert len(drawings) == 6 + 3  # plots, and strokes of the legend
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing)
        assert len(tree.findall("polyline")) in {0, 3}
        assert "nan" not in drawing


def test_a_page_of_one_policy_and_one_run_says_nothing_of_others():
    fleet = FleetPlan.uniform(2, failures=(Failure(1, 1.0, 2.0),))
    page = html_report(compare(Scenario(synthetic("bursts", requests=60), fleet), ["random"], seeds=1))
    assert "A policy simulated" in page
    assert 'class="key"' not in page
    assert "first run" not in page
    assert "worker 1 is down from 1 s on for 2 s" in page
    assert page.count('<rect class="outage"') == 3


def test_a_page_can_be_made_of_requests_that_all_failed():
    fleet = FleetPlan.uniform(1, failures=(Failure(0, 0.0),))
    page = html_report(compare(Scenario(synthetic("bursts", requests=20), fleet), ["random", "round_robin"], seeds=2))
    assert "nothing to show" in page
    assert "nan" not in page


class Picky:
    """Gives every third request to the first worker, and no other to any."""

    def __init__(self):
        self.asked = 0

    @hookimpl
    def select_single(self, workers):
        self.asked += 1
        return workers[0] if self.asked % 3 == 0 else None


def test_a_policy_that_fails_more_than_others_is_never_marked_as_best():
    scenario = Scenario(synthetic("shared_prefixes", requests=120, rate=20), FleetPlan.uniform(2))
    contenders = [Contender("picky", make=Picky), "round_robin", "random"]
    result = compare(scenario, contenders, seeds=2, warm_up=0.0)
    assert result["picky"].mean("failed_share") == pytest.approx(2 / 3)
    assert result["picky"].failures == {"no_worker": 160}
    text = text_report(result)
    assert not re.search(r"^picky.*\*", text, re.MULTILINE)
    assert re.search(r"^(round_robin|random) .*\*", text, re.MULTILINE)
    assert re.search(r"^picky .*66\.7 %", text, re.MULTILINE)
    assert "! picky: 160 of 240 requests failed (66.7 %): no worker was chosen, or none was alive (160)" in text
    page = html_report(result)
    assert "160 of 240 requests failed" in page
    for row in re.findall(r'<tr><th scope="row">picky</th>.*?</tr>', page):
        assert "best" not in row
    policies = json_report(result)["policies"]
    assert [policy["failures"] for policy in policies] == [{"no_worker": 160}, {}, {}]


def test_alone_among_equals_a_policy_that_failed_fewest_is_no_best_but_in_failing():
    scenario = Scenario(synthetic("shared_prefixes", requests=60, rate=20), FleetPlan.uniform(2))
    lines = text_report(compare(scenario, [Contender("picky", make=Picky), "random"], seeds=1)).splitlines()
    assert sum(line.count("*") for line in lines if line.startswith("random ")) == 1


def test_where_nothing_was_answered_there_are_no_times():
    fleet = FleetPlan.uniform(1, failures=(Failure(0, 0.0),))
    result = compare(Scenario(synthetic("bursts", requests=20), fleet), ["random", "round_robin"], seeds=2)
    text = text_report(result)
    (row,) = re.findall(r"^random .*100.0 %.*$", text, re.MULTILINE)
    assert row.split()[1:6] == ["none"] * 5
    assert " 0 ms" not in text
    assert "nan" not in text
    report = json.loads(json.dumps(json_report(result), allow_nan=False))
    for name in ("ttft_p90", "hit_rate", "e2e_mean", "inter_token_p99"):
        figure = report["policies"][0]["figures"][name]
        assert figure == {"mean": None, "low": None, "high": None, "runs": [None, None]}
    page = html_report(result)
    assert "<td>none</td>" in page
    assert "0 ms</td>" not in page


def test_a_run_without_answers_does_not_spoil_the_mean_of_the_others():
    dead = run_of((0, -1, 1, 10, 0))
    dead.requests[0].status = OutcomeStatus.ERROR
    summary = summarise([run_of((0, 1, 3, 10, 0)), dead], warm_up=0.0)
    assert summary["ttft_mean"] == Spread(1.0, 1.0, 1.0)
    assert summary.mean("failed_share") == 0.5


def test_load_of_requests_that_all_are_too_long_is_an_error():
    scenario = Scenario(synthetic("bursts", requests=5), FleetPlan.uniform(1, cache_tokens=64))
    with pytest.raises(StartupError, match="KV cache"):
        saturation_rate(scenario)


def test_every_policy_has_a_line_of_its_own_and_yardsticks_are_grey():
    summaries = [summarise([run_of((0, 1, 3, 10, 0))]) for _ in range(14)]
    summaries += [replace(summary, is_yardstick=True) for summary in summaries[:2]]
    assert len(set(kinds(summaries))) == 16
    assert kinds(summaries)[-2:] == ["y0", "y1"]


@pytest.mark.parametrize(
    ("low", "high", "is_log", "ticks"),
    [
        (0, 7.2, False, (0, 2, 4, 6, 8)),
        (1, 1.7, False, (1.0, 1.2, 1.4, 1.6, 1.8)),
        (3, 3, False, (3, 3.2, 3.4, 3.6, 3.8, 4)),
        (0.02, 0.3, True, (0.02, 0.05, 0.1, 0.2, 0.5)),
        (0.04, 90, True, (0.01, 0.1, 1, 10, 100)),
        (5, 5, True, (5, 10)),
    ],
)
def test_a_scale_spans_its_values_with_a_few_round_ones(low, high, is_log, ticks):
    scale = Scale(low, high, is_log=is_log)
    assert scale.ticks == pytest.approx(ticks)
    assert 0 <= scale.place(low) <= scale.place(high) <= 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0123, "12.3 ms"), (0.09996, "100 ms"), (0.9999, "1.00 s"), (2, "2.00 s"), (1234.5, "1,230 s")],
)
def test_times_have_three_digits(seconds, text):
    assert shown(next(figure for figure in FIGURES if figure.name == "ttft_mean"), seconds) == text


def test_processes_of_their_own_give_the_same_figures():
    scenario = Scenario(synthetic("bursts", requests=60), FleetPlan.uniform(2))
    told = []
    apart = compare(scenario, ["round_robin", "random"], seeds=2, jobs=2, progress=told.append)
    here = compare(scenario, ["round_robin", "random"], seeds=2)
    for one, other in zip(apart.records, here.records, strict=True):
        assert [record.requests for record in one] == [record.requests for record in other]
    assert told[-1] == 1.0


@pytest.mark.parametrize("workload", ["shared_prefixes", "sessions"])
def test_twice_the_engines_saturate_at_about_twice_the_rate(workload):
    trace = synthetic(workload, requests=300)
    rates = [saturation_rate(Scenario(trace, FleetPlan.uniform(workers))) for workers in (1, 2)]
    assert 1.5 < rates[1] / rates[0] < 3.0


def test_saturation_is_measured_once(tmp_path):
    scenario = Scenario(synthetic("bursts", requests=100), FleetPlan.uniform(1))
    told = []
    rates = [cached_saturation_rate(scenario, tmp_path / "cache", progress=told.append) for _ in range(2)]
    assert rates[0] == rates[1] > 0
    assert len(told) == 1
    other = Scenario(synthetic("bursts", requests=100, prompt_tokens=500), FleetPlan.uniform(1))
    assert cached_saturation_rate(other, tmp_path / "cache") != rates[0]
