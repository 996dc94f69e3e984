from __future__ import annotations

import asyncio
import logging
import math
import shutil
import subprocess

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from router_core.observability.exposition import Sample
from router_core.observability.families import TTFT_BUCKETS, MetricKind
from router_core.observability.registry import MetricsRegistry


def exposition(registry: MetricsRegistry) -> str:
    return generate_latest(registry).decode()


def figures(registry: MetricsRegistry) -> dict[str, float]:
    """The exposition, as Prometheus itself reads it: `name{label="value"}` -> value."""
    found = {}
    for family in text_string_to_metric_families(exposition(registry)):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            key = sample.name + (f"{{{labels}}}" if labels else "")
            assert key not in found, "a series must be exposed once"
            found[key] = sample.value
    return found


def dropped(registry: MetricsRegistry, metric: str, reason: str) -> float:
    return figures(registry).get(f'router_core_metrics_dropped_total{{metric="{metric}",reason="{reason}"}}', 0)


class Unreadable:
    """A label value of a type that has no good text."""


# --- what is refused, and never raises ---


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, "3", None, 1j, 10**400, object()])
def test_a_counter_refuses_a_value_it_cannot_add(value: object) -> None:
    registry = MetricsRegistry()
    registry.count("hits_total", 1, {})
    registry.count("hits_total", value, {})  # type: ignore[arg-type]
    assert figures(registry)["router_core_hits_total"] == 1
    assert dropped(registry, "router_core_hits_total", "invalid_value") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "3", None, 1j, 10**400])
def test_a_histogram_refuses_a_value_that_would_spoil_its_sum(value: object) -> None:
    registry = MetricsRegistry()
    registry.observe("wait_seconds", 0.5, {})
    registry.observe("wait_seconds", value, {})  # type: ignore[arg-type]
    found = figures(registry)
    assert found["router_core_wait_seconds_sum"] == 0.5
    assert found["router_core_wait_seconds_count"] == 1


@pytest.mark.parametrize("value", ["3", None, object()])
@pytest.mark.parametrize("is_first_use", [True, False])
def test_a_gauge_refuses_what_is_not_a_number(value: object, is_first_use: bool) -> None:
    registry = MetricsRegistry()
    if not is_first_use:
        registry.gauge("depth", 3, {})
    registry.gauge("depth", value, {})  # type: ignore[arg-type]
    assert figures(registry).get("router_core_depth") == (None if is_first_use else 3)


def test_other_label_names_than_the_first_use_had_are_dropped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = MetricsRegistry()
    registry.count("hits_total", 1, {"worker": "a"})
    for _ in range(3):
        registry.count("hits_total", 1, {})
        registry.count("hits_total", 1, {"tenant": "a"})
        registry.count("hits_total", 1, {"worker": "a", "tenant": "b"})
    assert figures(registry)['router_core_hits_total{worker="a"}'] == 1
    assert dropped(registry, "router_core_hits_total", "label_mismatch") == 9
    (record,) = caplog.records
    assert "hits_total" in record.getMessage()
    assert "worker" in record.getMessage()


def test_a_name_keeps_the_kind_of_its_first_use() -> None:
    registry = MetricsRegistry()
    registry.gauge("depth", 3, {})
    registry.observe("depth", 1, {})
    registry.observe("wait_seconds", 1, {})
    registry.gauge("wait_seconds_count", 7, {})
    registry.count("wait_seconds", 7, {})  # a counter's name ends in _total, so this is another metric
    found = figures(registry)
    assert found["router_core_depth"] == 3
    assert found["router_core_wait_seconds_count"] == 1
    assert found["router_core_wait_seconds_total"] == 7
    assert dropped(registry, "router_core_depth", "name_taken") == 1
    assert dropped(registry, "router_core_wait_seconds_count", "name_taken") == 1


@pytest.mark.parametrize("name", ["", "_total", "router_core_", "***", "n" * 300, None, 7])
def test_a_name_with_nothing_in_it_is_refused(name: object, caplog: pytest.LogCaptureFixture) -> None:
    registry = MetricsRegistry()
    registry.count(name, 1, {})  # type: ignore[arg-type]
    registry.count(name, 1, {})  # type: ignore[arg-type]
    assert dropped(registry, "", "invalid_name") == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("labels", [{"le": "1"}, {"__name__": "x"}, {"": "x"}, {"a b": "x"}, {"1st": "x"}])
def test_a_label_prometheus_does_not_allow_is_refused(labels: dict[str, str]) -> None:
    registry = MetricsRegistry()
    registry.observe("wait_seconds", 1, labels)
    assert "router_core_wait_seconds_count" not in exposition(registry)
    assert dropped(registry, "", "invalid_label") == 1


@pytest.mark.parametrize("value", [Unreadable(), None, ["a"], "x" * 5000])
def test_a_label_value_that_is_no_text_is_refused(value: object) -> None:
    registry = MetricsRegistry()
    registry.count("hits_total", 1, {"worker": value})  # type: ignore[dict-item]
    assert "router_core_hits_total" not in figures(registry)


def test_series_beyond_the_cap_are_dropped_and_those_before_it_go_on() -> None:
    registry = MetricsRegistry(max_series=2)
    for worker in ("a", "b", "c", "d", "a"):
        registry.count("hits_total", 1, {"worker": worker})
    found = figures(registry)
    assert found['router_core_hits_total{worker="a"}'] == 2
    assert 'router_core_hits_total{worker="c"}' not in found
    assert dropped(registry, "router_core_hits_total", "too_many_series") == 2


def test_metrics_beyond_the_cap_are_dropped() -> None:
    registry = MetricsRegistry(max_metrics=3)
    for number in range(10):
        registry.count(f"hits_of_user_{number}", 1, {})
    assert dropped(registry, "", "too_many_metrics") == 8


def test_nobody_can_break_the_count_of_drops() -> None:
    registry = MetricsRegistry(max_series=1)
    registry.count("metrics_dropped_total", 1, {})
    registry.gauge("metrics_dropped_total", 1, {"worker": "a"})
    registry.count("metrics_dropped_total", -1, {"metric": "x", "reason": "y"})
    assert dropped(registry, "router_core_metrics_dropped_total", "label_mismatch") == 1


def test_text_that_is_not_unicode_does_not_spoil_the_exposition() -> None:
    registry = MetricsRegistry()
    registry.count("hits_total", 1, {"reason": '\ud800 \n\\ " {}'})
    ((key, value),) = figures(registry).items()
    assert value == 1
    assert "?" in key


# --- counting ---


def test_names_get_prefix_and_total_exactly_once() -> None:
    registry = MetricsRegistry()
    registry.count("cache_hits", 1, {})
    registry.count("cache_hits_total", 1, {})
    registry.count("router_core_cache_hits_total", 1, {})
    registry.count("cache-hits", 1, {})
    assert figures(registry) == {"router_core_cache_hits_total": 4}


def test_the_order_of_labels_and_the_type_of_text_do_not_matter() -> None:
    registry = MetricsRegistry()
    registry.count("hits_total", 1, {"worker": "a", "kind": "counter"})
    registry.count("hits_total", 1, {"kind": MetricKind.COUNTER, "worker": "a"})
    registry.count("ranks_total", 1, {"rank": "1"})
    registry.count("ranks_total", 1, {"rank": 1})  # type: ignore[dict-item]
    registry.count("ranks_total", 1, {"rank": True})  # type: ignore[dict-item]
    found = figures(registry)
    assert found['router_core_hits_total{kind="counter",worker="a"}'] == 2
    assert found['router_core_ranks_total{rank="1"}'] == 2
    assert found['router_core_ranks_total{rank="True"}'] == 1


def test_a_labelled_sink_adds_its_labels_and_its_handles_feed_the_same_series() -> None:
    registry = MetricsRegistry()
    sink = registry.labelled({"pool": "chat", "plugin": "mine"})
    add = sink.counter("hits_total", {"kind": "long"})
    add(2)
    add(-1)
    sink.count("hits_total", 1, {"kind": "long"})
    sink.histogram("match_ratio", {})(0.5)
    found = figures(registry)
    assert found['router_core_hits_total{kind="long",plugin="mine",pool="chat"}'] == 3
    assert found['router_core_match_ratio_count{plugin="mine",pool="chat"}'] == 1


def test_a_handle_of_a_refused_series_takes_everything_and_counts_nothing() -> None:
    registry = MetricsRegistry()
    registry.gauge("hits", 1, {})
    registry.counter("hits{}", {"a b": "c"})(1)
    registry.histogram("hits", {})(1)
    assert dropped(registry, "router_core_hits", "name_taken") == 1


def test_a_gauge_shows_the_last_value() -> None:
    registry = MetricsRegistry()
    for depth in (5, 2):
        registry.gauge("depth", depth, {"worker": "a"})
    assert figures(registry)['router_core_depth{worker="a"}'] == 2


def test_a_histogram_counts_a_value_on_an_edge_below_it() -> None:
    registry = MetricsRegistry()
    for value in (0.001, 0.0011, 2560, 2561):
        registry.observe("time_to_first_token_seconds", value, {"leg": "single"})
    found = figures(registry)
    name = "router_core_time_to_first_token_seconds"
    assert found[f'{name}_bucket{{le="0.001",leg="single"}}'] == 1
    assert found[f'{name}_bucket{{le="0.005",leg="single"}}'] == 2
    assert found[f'{name}_bucket{{le="2560.0",leg="single"}}'] == 3
    assert found[f'{name}_bucket{{le="+Inf",leg="single"}}'] == 4
    assert found[f'{name}_count{{leg="single"}}'] == 4
    assert found[f'{name}_sum{{leg="single"}}'] == pytest.approx(5121.0021)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("time_to_first_token_seconds", TTFT_BUCKETS[0], TTFT_BUCKETS[-1]),
        ("request_duration_seconds", 0.001, 1920.0),
        ("decision_seconds", 1e-6, 0.1),
        ("match_ratio", 0.0, 1.0),
        ("matched_blocks", 1.0, 1e6),
    ],
)
def test_a_name_tells_how_its_histogram_is_divided(name: str, lowest: float, highest: float) -> None:
    registry = MetricsRegistry()
    registry.observe(name, 0.5, {})
    edges = [key.split('le="')[1].rstrip('"}') for key in figures(registry) if "_bucket" in key]
    assert (float(edges[0]), float(edges[-2]), edges[-1]) == (lowest, highest, "+Inf")
    assert [float(edge) for edge in edges] == sorted(float(edge) for edge in edges)


def test_help_says_what_our_own_metrics_mean_and_who_reports_others() -> None:
    registry = MetricsRegistry()
    registry.count("hits_total", 1, {"pool": "default", "plugin": "cache_aware"})
    registry.count("requests_total", 1, {"pool": "default", "plugin": "metrics"})
    text = exposition(registry)
    assert "# HELP router_core_hits_total Reported by plugin cache_aware." in text
    assert "# HELP router_core_requests_total Attempts that ended, by worker, outcome and leg." in text


def test_a_worker_that_left_for_good_can_be_forgotten() -> None:
    registry = MetricsRegistry(max_series=2)
    registry.gauge("depth", 1, {})
    for worker in ("a", "b"):
        registry.count("hits_total", 5, {"worker": worker, "reason": "x"})
    registry.forget({"worker": ("a",)})
    registry.count("hits_total", 1, {"worker": "c", "reason": "x"})
    registry.count("hits_total", 1, {"worker": "b", "reason": "x"})
    assert figures(registry) == {
        "router_core_depth": 1,
        'router_core_hits_total{reason="x",worker="b"}': 6,
        'router_core_hits_total{reason="x",worker="c"}': 1,
    }


# --- sampling ---


def test_what_a_sampler_no_longer_yields_is_gone() -> None:
    registry = MetricsRegistry()
    workers = ["a", "b"]
    registry.add_sampler(
        lambda: (Sample("worker_health", MetricKind.GAUGE, "Up.", {"worker": name}, 1) for name in workers)
    )
    assert len(figures(registry)) == 2
    workers.remove("a")
    assert figures(registry) == {'router_core_worker_health{worker="b"}': 1}


def test_a_failing_sampler_hides_nobody_elses_figures(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> list[Sample]:
        raise RuntimeError("no pool")

    registry = MetricsRegistry()
    registry.add_sampler(broken)
    registry.add_sampler(lambda: [Sample("depth", MetricKind.GAUGE, "Depth.", {}, 1)])
    with caplog.at_level(logging.ERROR):
        assert figures(registry) == {"router_core_depth": 1}
    assert "no pool" in caplog.text


def test_samples_that_would_make_an_invalid_exposition_are_dropped() -> None:
    registry = MetricsRegistry()
    registry.gauge("depth", 1, {})
    gauge = MetricKind.GAUGE
    registry.add_sampler(
        lambda: [
            Sample("depth", gauge, "Taken.", {}, 9),
            Sample("***", gauge, "Nameless.", {}, 9),
            Sample("health", gauge, "Up.", {"worker": "a"}, 1),
            Sample("health", gauge, "Twice.", {"worker": "a"}, 9),
            Sample("health", gauge, "Other labels.", {}, 9),
        ]
    )
    found = figures(registry)
    assert found["router_core_depth"] == 1
    assert found['router_core_health{worker="a"}'] == 1
    assert 9 not in found.values()


TIMES = ((0.001, 60), (0.1, 30), (math.inf, 10))


def test_a_sampled_histogram_has_sum_count_and_buckets_that_hold_the_lower_ones() -> None:
    registry = MetricsRegistry()
    registry.add_sampler(lambda: [Sample("decision_seconds", MetricKind.HISTOGRAM, "Time.", {}, 0.5, TIMES)])
    assert figures(registry) == {
        "router_core_decision_seconds_sum": 0.5,
        "router_core_decision_seconds_count": 100,
        'router_core_decision_seconds_bucket{le="0.001"}': 60,
        'router_core_decision_seconds_bucket{le="0.1"}': 90,
        'router_core_decision_seconds_bucket{le="+Inf"}': 100,
    }


# --- exposing ---


def full_registry() -> MetricsRegistry:
    registry = MetricsRegistry()
    registry.count("requests_total", 1, {"worker": "http://a:1", "status": "success", "leg": "single"})
    registry.observe("request_duration_seconds", 0.2, {"leg": "single"})
    registry.gauge("tree_size", 12, {})
    labels = {"policy": "x"}
    registry.add_sampler(lambda: [Sample("decision_seconds", MetricKind.HISTOGRAM, "Time.", labels, 0.5, TIMES)])
    return registry


async def test_rendering_in_steps_gives_the_whole_exposition() -> None:
    registry = full_registry()
    body, content_type = await registry.render()
    assert body.decode() == exposition(registry)
    assert content_type.startswith("text/plain; version=0.0.4")


async def test_an_empty_registry_renders() -> None:
    body, _ = await MetricsRegistry().render()
    assert b"# TYPE router_core_metrics_dropped_total counter" in body


async def test_a_metric_that_is_new_while_others_are_rendered_does_no_harm() -> None:
    registry = full_registry()
    rendering = asyncio.ensure_future(registry.render())
    await asyncio.sleep(0)
    registry.count("late_total", 1, {})
    registry.forget({"worker": ("http://a:1",)})
    body, _ = await rendering
    assert b"router_core_tree_size 12.0" in body


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_promtool_finds_nothing_to_complain_about() -> None:
    body = exposition(full_registry()).encode()
    result = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
