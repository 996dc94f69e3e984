"""Other people's traces, turned into ours."""

from __future__ import annotations

import json

import pytest

from router_core.contract.errors import StartupError
from router_core.simulate import read_trace, synthetic, write_trace
from router_core.simulate.convert import from_csv, from_mooncake, from_sessions, regroup


def session(tmp_path, name, hashes, **more):
    rows = [{"t": 10.0 * n, "type": "s", "in": 64 * len(h), "out": 5, "hash_ids": h} for n, h in enumerate(hashes)]
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({"id": name, "block_size": 64, "requests": rows} | more))
    return path


def test_sessions_share_tools_and_nothing_else(tmp_path):
    for name in "ab":
        session(tmp_path, name, [[1, 2, 3], [1, 2, 3, 4]], tool_tokens=128, system_tokens=0)
    trace = from_sessions([tmp_path], seed=0, tick_s=0)
    first, second = trace.sessions
    assert trace.is_closed_loop
    assert [len(turns) for turns in trace.sessions] == [2, 2]
    assert first[0].blocks[:2] == second[0].blocks[:2]
    assert not set(first[0].blocks[2:]) & set(second[1].blocks)
    assert first[1].think_s == 10.0


def test_a_session_that_changes_its_model_can_be_read_back(tmp_path):
    path = session(tmp_path, "a", [[1, 2, 3], [1, 2, 3, 4]], tool_tokens=128)
    content = json.loads(path.read_text())
    for row, model in zip(content["requests"], ("large", "small"), strict=True):
        row["model"] = model
    path.write_text(json.dumps(content))
    write_trace(from_sessions([path], seed=0, tick_s=0), tmp_path / "t.jsonl")
    first, second = read_trace(tmp_path / "t.jsonl").requests
    assert not set(first.blocks) & set(second.blocks)


def test_sub_agents_are_left_out_and_long_contexts_end_a_session(tmp_path):
    path = session(tmp_path, "a", [[1], [1, 2]])
    content = json.loads(path.read_text())
    content["requests"].insert(1, {"type": "subagent", "requests": []})
    content["requests"].append(content["requests"][-1] | {"in": 200_000})
    path.write_text(json.dumps(content))
    assert len(from_sessions([path], seed=0, tick_s=0).requests) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"requests": 1}', '{"requests": [{"type": "s"}]}'])
def test_a_file_that_is_no_session_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(StartupError, match=r"a\.json"):
        from_sessions([path], seed=0, tick_s=0)


def test_csv_columns_go_by_their_usual_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04,500,7\n2023-11-16 18:17:03.5,10,1\n")
    trace = from_csv([path], seed=0, tick_s=0)
    assert [(one.at_s, one.prompt_tokens) for one in trace.requests] == [(0.0, 10), (pytest.approx(0.5), 500)]


@pytest.mark.parametrize(
    ("content", "said"), [("a,b\n1,2\n", ":1: "), ("time,input_tokens,output_tokens\n1,x,3\n", ":2: ")]
)
def test_a_bad_csv_is_named_with_its_line(tmp_path, content, said):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(StartupError, match=said):
        from_csv([path], seed=0, tick_s=0)


def test_a_tick_spreads_what_was_rounded(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"timestamp": 3000, "input_length": 5, "output_length": 1, "hash_ids": []}
    path.write_text(f"{json.dumps(row)}\n" * 20)
    times = [one.at_s for one in from_mooncake([path], seed=0, tick_s=3.0).requests]
    assert len(set(times)) == 20
    assert times == sorted(times)
    assert all(3.0 <= at_s <= 6.0 for at_s in times)


def test_a_tick_leaves_requests_in_their_order(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = ({"timestamp": 3000 * (n // 10), "input_length": 512 * n, "output_length": 1} for n in range(1, 31))
    path.write_text("".join(json.dumps(row | {"hash_ids": []}) + "\n" for row in rows))
    lengths = [one.prompt_tokens for one in from_mooncake([path], seed=0, tick_s=3.0).requests]
    assert lengths == sorted(lengths)


def test_what_sessions_convert_to_can_be_read_back(tmp_path):
    path = session(tmp_path, "a", [[1, 2]])
    content = json.loads(path.read_text())
    content["requests"][0]["in"] = 64
    path.write_text(json.dumps(content))
    write_trace(from_sessions([path], seed=0, tick_s=0), tmp_path / "t.jsonl")
    assert read_trace(tmp_path / "t.jsonl").requests[0].prompt_tokens == 64


def test_larger_blocks_share_what_full_ones_shared():
    trace = synthetic("sessions", requests=50)
    larger = regroup(trace, 256)
    assert larger.block_tokens == 256
    assert trace.reuse - 0.2 < larger.reuse < trace.reuse
    with pytest.raises(StartupError, match="100 is no multiple of the trace's 64; give 64, 128 or another one"):
        regroup(trace, 100)
