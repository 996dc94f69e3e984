"""Bodies are changed by what is to be changed alone, whatever JSON they hold."""

from __future__ import annotations

import json
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.contract.worker import Worker
from router_core.traffic.json_edit import append_members, replace_members
from router_core.traffic.pd.sglang import batch_size, bootstrap_members

INSERTION = b'"bootstrap_room":1,"b":[null]'
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8) | st.sampled_from(["bootstrap_room", "stream", "}"]), NESTED, max_size=5)
SPACE = st.text(alphabet=" \t\r\n", max_size=3)


@given(OBJECTS, SPACE, SPACE, st.sampled_from([None, 1]), st.booleans())
def test_exactly_the_original_bytes_and_the_insertion(fields, before, after, indent, is_ascii):
    body = (before + json.dumps(fields, indent=indent, ensure_ascii=is_ascii) + after).encode("utf-8", "replace")
    pieces = append_members(body, INSERTION)
    changed = b"".join(pieces)
    comma = b"," if fields else b""
    at = changed.rindex(comma + INSERTION)
    assert changed[:at] + changed[at + len(comma + INSERTION) :] == body
    assert json.loads(changed) == json.loads(body) | {"bootstrap_room": 1, "b": [None]}


def test_large_bodies_are_not_copied():
    body = b'{"a":"' + b"x" * 100_000 + b'"}'
    pieces = append_members(body, b'"b":1')
    assert all(piece.obj is body for piece in pieces if isinstance(piece, memoryview))
    assert b"".join(pieces) == body[:-1] + b',"b":1}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"b":1}'),
        (b" { \n} ", b' { \n"b":1} '),
        (b'{"a":{}}', b'{"a":{},"b":1}'),
        (b'{"b":2,"b":3}', b'{"b":2,"b":3,"b":1}'),
        (b'{"\\u0062":2}', b'{"\\u0062":2,"b":1}'),
    ],
)
def test_the_insertion_stands_last_so_that_it_counts(body, expected):
    changed = b"".join(append_members(body, b'"b":1'))
    assert changed == expected
    assert orjson.loads(changed)["b"] == json.loads(changed)["b"] == 1


@pytest.mark.parametrize("body", [b"", b"  ", b"[]", b"{", b"}", b"null", b'"{}"', b"[{}]", b"{} x"])
def test_what_is_no_object_is_left_alone(body):
    assert append_members(body, b'"b":1') is None
    assert replace_members(body, (), b'"b":1') is None


@given(OBJECTS, SPACE, st.sampled_from([None, 1]))
def test_members_are_removed_and_the_others_keep_their_bytes(fields, before, indent):
    body = (before + json.dumps(fields, indent=indent)).encode()
    changed = replace_members(body, {"stream", "}"}, b'"new":1')
    expected = {name: value for name, value in fields.items() if name not in ("stream", "}")} | {"new": 1}
    assert json.loads(changed) == expected


def test_a_member_is_removed_however_often_and_however_it_is_written():
    body = b'{"stream":true, "\\u0073tream" :[{"stream":1}], "x":{"stream":1.50}, "stream":"a,\\"}"}'
    assert replace_members(body, {"stream"}, b'"y":1') == b'{"x":{"stream":1.50},"y":1}'


@pytest.mark.parametrize(
    ("path", "fields", "size"),
    [
        (b"/generate", {"text": "a"}, None),
        (b"/generate", {"text": ["a"]}, 1),
        (b"/generate", {"input_ids": [1, 2]}, None),
        (b"/generate", {"input_ids": [[1], [2]]}, 2),
        (b"/generate", {"text": ["a", "b"], "sampling_params": {"n": 3}}, 6),
        (b"/generate", {"text": "a", "n": 3}, None),
        (b"/v1/completions", {"prompt": ["a", "b"]}, 2),
        (b"/v1/completions", {"prompt": [], "n": True}, None),
        (b"/v1/chat/completions", {"messages": [{}, {}], "n": 2}, 2),
        (b"/v1/chat/completions", {"n": 1}, None),
        (b"/v1/chat/completions", {"n": 10**12}, None),
        (b"/v1/responses", {"input": ["a", "b"]}, None),
    ],
)
def test_a_batch_is_known_by_its_form(path, fields, size):
    assert batch_size(path, fields) == size


@pytest.mark.parametrize(
    ("url", "labels", "host", "port"),
    [
        ("http://[::1]:8000", {"bootstrap_port": "8998"}, "[::1]", 8998),
        ("http://p.example:8000", {}, "p.example", None),
    ],
)
def test_the_bootstrap_server_is_the_prefill_workers(url, labels, host, port):
    members = bootstrap_members(Worker(url, labels=labels), None, random.Random(1))
    fields = json.loads(b"{" + members + b"}")
    assert (fields["bootstrap_host"], fields["bootstrap_port"]) == (host, port)
    assert 0 <= fields["bootstrap_room"] < 2**63
