"""Traces in files, written and read; what cannot be used is an error with file and line."""

from __future__ import annotations

import gzip
import json

import pytest

from router_core.contract.errors import StartupError
from router_core.simulate import read_trace, synthetic, write_trace

GOOD = {"timestamp": 5, "input_length": 1000, "output_length": 3, "hash_ids": [1, 2]}


def written(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
@pytest.mark.parametrize("workload", ["sessions", "hot_prompt"])
def test_a_written_trace_is_read_back(tmp_path, name, workload):
    trace = synthetic(workload, requests=40)
    write_trace(trace, tmp_path / name)
    back = read_trace(tmp_path / name)
    assert (back.block_tokens, back.is_closed_loop, back.name) == (64, trace.is_closed_loop, "trace")
    for one, other in zip(trace.requests, back.requests, strict=True):
        assert other.at_s == pytest.approx(one.at_s, abs=1e-5)
        assert other.think_s == pytest.approx(one.think_s, abs=1e-5)
        assert (other.prompt_tokens, other.output_tokens) == (one.prompt_tokens, one.output_tokens)
        assert (other.blocks, other.session) == (one.blocks, one.session)
    assert [[r.prompt_tokens for r in s] for s in back.sessions] == [
        [r.prompt_tokens for r in s] for s in trace.sessions
    ]


def test_gzip_is_known_by_its_content(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert read_trace(path).requests[0].blocks == (1, 2)


def test_the_block_size_is_told_by_flag_first_line_or_file_beside(tmp_path):
    path = written(tmp_path / "a.jsonl", GOOD)
    assert read_trace(path).block_tokens == 512
    assert read_trace(path, block_tokens=500).block_tokens == 500
    (tmp_path / "a.meta.json").write_text('{"block_size": 64}')
    assert read_trace(path).block_tokens == 64
    assert read_trace(path, block_tokens=64).block_tokens == 64
    with pytest.raises(
        StartupError, match=r"a.meta.json: block_size: .* of 64 tokens, not of 16 .*; leave the flag out"
    ):
        read_trace(path, block_tokens=16)
    assert read_trace(written(path, {"block_size": 32}, GOOD)).block_tokens == 32
    with pytest.raises(StartupError, match=r"a.jsonl:1: block_size: the trace has blocks of 32 tokens, not of 16 "):
        read_trace(path, block_tokens=16)


def test_a_path_may_be_text(tmp_path):
    trace = synthetic("bursts", requests=5)
    write_trace(trace, str(tmp_path / "t.jsonl.gz"))
    assert read_trace(str(tmp_path / "t.jsonl.gz")).requests[0].blocks == trace.requests[0].blocks


def test_the_same_trace_gives_the_same_file_whatever_its_name(tmp_path, monkeypatch):
    trace = synthetic("bursts", requests=5)
    for name, now in (("a", 1e9), ("b", 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_trace(trace, tmp_path / f"{name}.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_only_full_blocks_can_be_shared(tmp_path):
    trace = read_trace(written(tmp_path / "a.jsonl", GOOD))
    assert trace.full_blocks(trace.requests[0]) == (1,)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "2: is no JSON"),
        ("[1]", "2: is no JSON object"),
        (GOOD | {"input_length": None}, "2: input_length is missing"),
        (GOOD | {"output_length": -1}, "2: output_length: -1 is no number of at least 0"),
        (GOOD | {"timestamp": "soon"}, "2: timestamp: 'soon'"),
        (GOOD | {"timestamp": True}, "2: timestamp: True"),
        (GOOD | {"hash_ids": [1, "a"]}, "2: hash_ids"),
        ({name: value for name, value in GOOD.items() if name != "hash_ids"}, "2: hash_ids is missing"),
        (GOOD | {"hash_ids": None}, "2: hash_ids is missing"),
        (GOOD | {"hash_ids": [1, 2**62]}, "2: hash_ids: 4611686018427387904 is not from 0 to below 2^62"),
        (GOOD | {"hash_ids": [-1]}, "2: hash_ids: -1 is not from 0 to below 2^62"),
        (GOOD | {"hash_ids": [1, 2, 3]}, "2: hash_ids: 3 blocks of 512 tokens are more than 1,000 tokens fill"),
        (GOOD | {"think_ms": -5}, "2: think_ms"),
        (GOOD | {"hash_ids": [7, 7]}, "2: hash_ids: 7 stands twice; give each block"),
        (GOOD | {"hash_ids": [1, 1]}, "2: hash_ids: 1 stands twice; give each block"),
        (
            GOOD | {"hash_ids": [3, 2]},
            "2: hash_ids: 2 stands behind 3, but behind 1 on a line before; an id stands for",
        ),
        (GOOD | {"hash_ids": [2]}, "2: hash_ids: 2 stands at the start of a prompt, but behind 1 on a line before"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, said):
    path = written(tmp_path / "a.jsonl", GOOD, row)
    with pytest.raises(StartupError) as caught:
        read_trace(path)
    assert f"{path}:{said}" in caught.value.problems[0]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x1f\x8bbroken"])
def test_a_file_that_is_no_trace_is_an_error(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(StartupError, match=r"a\.jsonl"):
        read_trace(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(StartupError, match="No such file"):
        read_trace(tmp_path / "none.jsonl")


def test_a_turn_that_was_there_is_an_error_with_file_and_line(tmp_path):
    turn = GOOD | {"session_id": "s", "turn": 1}
    path = written(tmp_path / "t.jsonl", turn, turn | {"turn": 2}, turn | {"session_id": "r"}, turn)
    with pytest.raises(StartupError, match=r"t.jsonl:4: turn: session_id 's' has a turn 1 on line 1 already; number"):
        read_trace(path)


def test_headers_are_kept_by_lower_case_name(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [], "headers": {"X-Tenant": "a"}}\n'
    )
    trace = read_trace(path)
    assert trace.requests[0].headers == (("x-tenant", "a"),)
    write_trace(trace, tmp_path / "again.jsonl")
    assert read_trace(tmp_path / "again.jsonl").requests == trace.requests


def test_headers_that_are_no_texts_are_an_error_with_file_and_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [], "headers": {"x": 1}}\n')
    with pytest.raises(StartupError, match=r"t.jsonl:1: headers"):
        read_trace(path)


def test_a_length_beyond_reason_is_an_error_with_file_and_line(tmp_path):
    with pytest.raises(StartupError, match=r"t.jsonl:1: input_length: 99999999999 is more than 10,000,000"):
        read_trace(written(tmp_path / "t.jsonl", {**GOOD, "input_length": 99_999_999_999}))
