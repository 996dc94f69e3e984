"""A request made one for a rank: the client's bytes stay, the router's word stands."""

from __future__ import annotations

import json

import pytest

from router_core.contract.worker import Worker
from router_core.relay.exchange import Exchange
from router_core.relay.request_head import RequestHead
from router_core.traffic.ranks import RankPassing, with_rank

URL = "http://engine:8000"
WHOLE = Worker(URL)


def rank(number: int) -> Worker:
    return Worker(f"{URL}@{number}", base_url=URL)


class Client:
    may_stay_open = True
    error_code_header = None

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is written here")

    def answered(self, *, keep_alive: bool) -> None: ...

    def break_off(self, *, ends_by_close: bool) -> None: ...


def exchange(body: bytes = b'{"a":1}', *, path: str = "/v1/chat/completions", more: str = "") -> Exchange:
    head = f"POST {path} HTTP/1.1\r\nHost: r\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode()
    return Exchange(Client(), RequestHead(head), body)


def sent(request: Exchange) -> tuple[bytes, bytes]:
    return request.head.outgoing(b"engine", len(request.body)), request.body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', b'{"a":1,"data_parallel_rank":3}'),
        (b' {"a": [ 1 ] } \r\n', b' {"a": [ 1 ] ,"data_parallel_rank":3} \r\n'),
        (b"{}", b'{"data_parallel_rank":3}'),
        (b"{ \n }", b'{ \n "data_parallel_rank":3}'),
        (b'{"data_parallel_rank":0}', b'{"data_parallel_rank":0,"data_parallel_rank":3}'),
        (b'{"a":"}"}', b'{"a":"}","data_parallel_rank":3}'),
    ],
)
def test_an_object_gets_the_rank_at_its_end(body: bytes, expected: bytes) -> None:
    assert with_rank(body, b"3") == expected
    assert json.loads(expected)["data_parallel_rank"] == 3


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"}", b"[1]", b"null", b'"{}', b"--x\r\n", b"\xff{}"])
def test_what_is_no_object_stays_as_it_is(body: bytes) -> None:
    assert with_rank(body, b"3") == body


def test_sglang_reads_the_rank_in_the_body_and_vllm_in_a_header() -> None:
    request = exchange()
    RankPassing(lambda url: "sglang").address(request, rank(1))
    head, body = sent(request)
    assert body == b'{"a":1,"data_parallel_rank":1}'
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert b"data-parallel" not in head

    request = exchange(more="X-Data-Parallel-Rank: 7\r\nX-Other: kept\r\n")
    RankPassing(lambda url: "vllm").address(request, rank(12))
    head, body = sent(request)
    assert body == b'{"a":1}'
    assert head.lower().count(b"x-data-parallel-rank") == 1
    assert b"x-data-parallel-rank: 12\r\n" in head
    assert b"X-Other: kept\r\n" in head


@pytest.mark.parametrize("kind", ["sglang", "vllm"])
def test_on_another_try_only_the_new_rank_is_named(kind: str) -> None:
    request = exchange()
    untouched = sent(request)
    passing = RankPassing(lambda url: kind)
    passing.address(request, rank(0))
    passing.address(request, rank(1))
    other = exchange()
    passing.address(other, rank(1))
    assert sent(request) == sent(other)
    passing.address(request, WHOLE)
    assert sent(request) == untouched


@pytest.mark.parametrize(("kind", "path"), [(None, "/generate"), ("sglang", "/v1/embeddings"), ("sglang", "/rerank")])
def test_who_reads_no_rank_is_told_none(kind: str | None, path: str) -> None:
    request = exchange(path=path)
    before = sent(request)
    RankPassing(lambda url: kind).address(request, rank(1))
    assert sent(request) == before
