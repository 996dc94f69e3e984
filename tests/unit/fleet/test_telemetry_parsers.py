from __future__ import annotations

import json
from pathlib import Path

import pytest

from router_core.fleet.telemetry.engine_metrics import parse_metrics
from router_core.fleet.telemetry.prometheus_text import samples
from router_core.fleet.telemetry.reading import Reading
from router_core.fleet.telemetry.sglang_loads import parse_loads

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B"} 7.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="meta-llama/Llama-3.1-8B",reason="capacity"} 100.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B"} 0.4375
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="meta-llama/Llama-3.1-8B"} 12.0
"""

VLLM_TWO_RANKS = b"""vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(VLLM, Reading(7, 3, None, 0.4375), id="vllm"),
        pytest.param(VLLM.replace(b"\n", b"\r\n"), Reading(7, 3, None, 0.4375), id="carriage returns"),
        pytest.param(VLLM.replace(b"kv_cache", b"gpu_cache"), Reading(7, 3, None, 0.4375), id="vllm v0"),
        pytest.param(VLLM.replace(b"vllm:", b"vllm_"), Reading(7, 3, None, 0.4375), id="underscores"),
        pytest.param(
            VLLM.replace(b"kv_cache", b"kv_cash"), Reading(7, 3), id="a missing cache gauge is not an empty cache"
        ),
        pytest.param(VLLM_TWO_RANKS, Reading(9, 1, None, 0.5), id="ranks are summed, the fullest counts"),
        pytest.param(
            b'sglang:num_running_reqs{model_name="m",tp_rank="0",pp_rank="0"} 4.0\n'
            b'sglang:num_running_reqs{model_name="m",tp_rank="1",pp_rank="0"} 4.0\n'
            b'sglang:num_queue_reqs{model_name="m",tp_rank="0",pp_rank="0"} 2.0\n'
            b'sglang:num_queue_reqs{model_name="m",tp_rank="1",pp_rank="0"} 1.0\n'
            b'sglang:token_usage{model_name="m",tp_rank="0",pp_rank="0"} 0.31\n',
            Reading(4, 2, None, 0.31),
            id="tensor-parallel copies count once",
        ),
        pytest.param(
            b'sglang_num_running_reqs{dp_rank="0",tp_rank="0"} 4\nsglang_num_running_reqs{dp_rank="1",tp_rank="4"} 5\n'
            b'sglang_num_queue_reqs{dp_rank="0",tp_rank="0"} 0\nsglang_num_queue_reqs{dp_rank="1",tp_rank="4"} 0\n',
            Reading(9, 0),
            id="sglang ranks",
        ),
        pytest.param(
            b'sglang:num_running_reqs{priority=""} 5\nsglang:num_running_reqs{priority="0"} 3\n'
            b'sglang:num_running_reqs{priority="1"} 2\n'
            b'sglang:num_queue_reqs{priority="0"} 3\nsglang:num_queue_reqs{priority="1"} 2\n',
            Reading(5, 5),
            id="priorities beside their sum are left out, without it they are added",
        ),
        pytest.param(
            b"trtllm_num_requests_running 3\ntrtllm_num_requests_waiting 1\ntrtllm_kv_cache_utilization 0.2\n",
            Reading(3, 1, None, 0.2),
            id="trtllm",
        ),
        pytest.param(
            b"llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\nllamacpp:n_busy_slots_per_decode 0.9",
            Reading(1, 2),
            id="llama.cpp, no newline at the end",
        ),
        pytest.param(
            b'vllm:num_requests_running{model_name="a"} 1\nvllm:num_requests_running{model_name="b"} 2\n',
            Reading(3),
            id="models are summed",
        ),
        pytest.param(
            b'vllm:num_requests_running{model_name="a \\"} 9\\\\",x="{},="} 4 1700000000000\n',
            Reading(4),
            id="odd labels and a timestamp",
        ),
        pytest.param(
            b"vllm:num_requests_running NaN\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 43.0\n",
            Reading(None, 2),
            id="no number, and no share",
        ),
        pytest.param(
            b'vllm:num_requests_running -1\nvllm:num_requests_waiting{engine="0" 7\nvllm:num_requests_waiting 1\n',
            Reading(None, 1),
            id="less than nothing, and a broken line",
        ),
    ],
)
def test_every_engines_metrics_are_read(text: bytes, expected: Reading) -> None:
    assert parse_metrics(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"\xff\xfe\x00",
        b"process_cpu_seconds_total 1\n",
        b"vllm:num_requests_running\n",
        b"vllm:num_requests_running{",
        b"vllm:num_requests_running x\n",
        b"# vllm:num_requests_running 3\n",
        b"vllm:num_requests_running_total 3\n",
        b'vllm:num_requests_running{a="' + b"x" * 100_000 + b'"} 3\n',
    ],
)
def test_metrics_without_load_are_unknown(text: bytes) -> None:
    assert parse_metrics(text) is None


def test_a_rank_reads_its_own_series_only() -> None:
    assert parse_metrics(VLLM_TWO_RANKS, 1) == Reading(2, 1, None, 0.5)
    assert parse_metrics(VLLM_TWO_RANKS, 2) is None
    assert parse_metrics(b"vllm:num_requests_running 3\n", 0) is None


def test_a_recorded_vllm_exposition_reads_the_same_as_with_the_general_parser() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    by_name = {
        sample.name: sample.value
        for family in text_string_to_metric_families(VLLM.decode())
        for sample in family.samples
    }
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert [sample.value for sample in samples(VLLM, name)] == [by_name[name]]


RANK = {
    "dp_rank": 0,
    "num_running_reqs": 5,
    "num_waiting_reqs": 2,
    "num_waiting_uncached_tokens": 4096,
    "num_total_reqs": 7,
    "num_used_tokens": 30000,
    "max_total_num_tokens": 120000,
    "token_usage": 0.25,
    "gen_throughput": 812.4,
}
OTHER = RANK | {"dp_rank": 1, "num_running_reqs": 1, "num_waiting_uncached_tokens": 4, "token_usage": 0.75}


def without(entry: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in entry.items() if name not in names}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({"timestamp": 1.0, "loads": [RANK]}, Reading(5, 2, 4096, 0.25), id="one rank"),
        pytest.param({"loads": [RANK, OTHER]}, Reading(6, 4, 4100, 0.75), id="two ranks"),
        pytest.param(
            {"loads": [RANK, without(OTHER, "num_running_reqs", "num_total_reqs")]},
            Reading(None, 4, 4100, 0.75),
            id="half a sum is no sum",
        ),
        pytest.param(
            {"loads": [without(RANK, "token_usage", "num_running_reqs")]}, Reading(5, 2, 4096, 0.25), id="derived"
        ),
        pytest.param(
            {
                "aggregate": {
                    "total_running_reqs": 9,
                    "total_waiting_reqs": 1,
                    "total_reqs": 10,
                    "avg_token_usage": 0.125,
                }
            },
            Reading(9, 1, None, 0.125),
            id="aggregate",
        ),
        pytest.param([{"dp_rank": 0, "num_reqs": 7, "num_waiting_reqs": 2, "num_tokens": 9}], Reading(5, 2), id="old"),
        pytest.param(
            {"loads": [RANK | {"num_running_reqs": -1, "num_total_reqs": True, "token_usage": "n/a"}]},
            Reading(None, 2, 4096, 0.25),
            id="figures that are none",
        ),
        pytest.param({"loads": [None, 3, RANK]}, Reading(5, 2, 4096, 0.25), id="entries that are none"),
    ],
)
def test_every_shape_of_sglang_loads_is_read(document: object, expected: Reading) -> None:
    assert parse_loads(json.dumps(document).encode()) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"3",
        b"[]",
        b"{}",
        b'{"loads": []}',
        b'{"loads": 3}',
        b'{"detail": "Not Found"}',
        b'[{"load": 4}]',
    ],
)
def test_loads_that_tell_nothing_are_unknown(body: bytes) -> None:
    assert parse_loads(body) is None


def test_a_rank_reads_its_own_entry_only() -> None:
    body = json.dumps({"loads": [RANK, OTHER]}).encode()
    assert parse_loads(body, 1) == Reading(1, 2, 4, 0.75)
    assert parse_loads(body, 2) is None
    assert parse_loads(b'{"aggregate": {"num_running_reqs": 3}}', 0) is None


def test_parsers_do_no_io() -> None:
    folder = Path(parse_metrics.__code__.co_filename).parent
    for name in ("reading", "sglang_loads", "prometheus_text", "engine_metrics", "sources"):
        text = (folder / f"{name}.py").read_text()
        assert "import asyncio" not in text
        assert "import aiohttp" not in text
