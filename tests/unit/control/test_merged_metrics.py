from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router_core.control.merged_metrics import merge_expositions

ONE = b"""# HELP vllm:running Requests running.
# TYPE vllm:running gauge
vllm:running{model_name="m"} 3.0
# HELP vllm:ttft_seconds Time.
# TYPE vllm:ttft_seconds histogram
vllm:ttft_seconds_bucket{le="0.1",model_name="m"} 1.0
vllm:ttft_seconds_bucket{le="+Inf",model_name="m"} 2.0
vllm:ttft_seconds_count{model_name="m"} 2.0
vllm:ttft_seconds_sum{model_name="m"} 0.5
# TYPE requests_total counter
requests_total 7
"""


def samples_of(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_each_sample_says_whose_it_is() -> None:
    samples = samples_of(merge_expositions([("http://a", ONE), ("http://b", ONE)]))
    assert [labels["worker_addr"] for labels, _ in samples["vllm:running"]] == ["http://a", "http://b"]
    assert samples["requests_total"] == [({"worker_addr": "http://a"}, 7.0), ({"worker_addr": "http://b"}, 7.0)]
    assert len(samples["vllm:ttft_seconds_bucket"]) == 4


def test_each_metric_stands_once_with_its_samples_together() -> None:
    lines = merge_expositions([("http://a", ONE), ("http://b", ONE)]).splitlines()
    assert lines.count(b"# TYPE vllm:running gauge") == 1
    assert lines.index(b"# TYPE vllm:ttft_seconds histogram") == 5
    assert [line.partition(b"{")[0] for line in lines[6:14]] == [
        *[b"vllm:ttft_seconds_bucket"] * 2,
        b"vllm:ttft_seconds_count",
        b"vllm:ttft_seconds_sum",
    ] * 2


@pytest.mark.parametrize(
    ("line", "merged"),
    [
        (b"up 1", b'up{worker_addr="http://a"} 1'),
        (b"up{} 1 1700000000000", b'up{worker_addr="http://a"} 1 1700000000000'),
        (b'up{x="a}b, {c"} NaN', b'up{worker_addr="http://a",x="a}b, {c"} NaN'),
        (b'up{x="\\"",} 1', b'up{worker_addr="http://a",x="\\""} 1'),
        (b'up{worker_addr="http://z"} 1', b'up{worker_addr="http://a"} 1'),
        (b'up{x="1",worker_addr="http://z",y="2"} 1', b'up{worker_addr="http://a",x="1",y="2"} 1'),
        (b"", b""),
        (b"nonsense", b""),
        (b"<html>502</html>", b""),
        (b"1up 3", b""),
        (b"# EOF", b""),
        (b"\xff\xfe 1", b""),
    ],
)
def test_lines_one_by_one(line: bytes, merged: bytes) -> None:
    assert merge_expositions([("http://a", line + b"\n")]).strip() == merged


def test_an_address_cannot_break_out_of_its_label() -> None:
    assert merge_expositions([('http://a"} 1\n', b"up 1")]) == b'up{worker_addr="http://a\\"} 1\\n"} 1\n'
