"""Both protocols against bytes that nobody would send by accident: pieces of HTTP in any order, cut at any place."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router_core.relay.parties import Ending

from .fakes import FakeClient, Relayed, split_at

LINE_ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n\r\n", b"\r\n\r\n", b"\n", b"\r", b"\r\n\r", b"\r\n ", b""]
FRAMING = [
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 5 ", b"Content-Length: 05", b"Content-Length: +5",
    b"content-length:5", b"Content-Length: 99999999999999999999", b"Content-Length: 5, 5", b"Content-Length : 5",
    b"Transfer-Encoding: chunked", b"transfer-encoding:\tCHUNKED ", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked",
    b"Connection: close", b"Connection: keep-alive, X-A", b"Connection: content-length, transfer-encoding",
    b"Upgrade: h2c", b"Connection: upgrade", b"Expect: 100-continue", b"Trailer: X-A", b"TE: trailers",
    b"X-A: a\x00b", b"X-A: \xff\xfe", b"X-A:", b": a", b"X A: b", b"X-A",
]  # fmt: skip
BODIES = [
    b"hello",
    b"0",
    b"5",
    b"5;a=b",
    b"5 ",
    b"05",
    b"0x5",
    b"ffffffffffffffff1",
    b"-1",
    b"X-Trailer: a",
    b"G",
    b"{}",
]
REQUESTS = [
    b"POST /x HTTP/1.1", b"GET /x HTTP/1.1", b"HEAD /x HTTP/1.1", b"POST /x HTTP/1.0", b"OPTIONS * HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1", b"GET http://b/x HTTP/1.1", b"PRI * HTTP/2.0", b"get /x HTTP/1.1", b"POST  /x HTTP/1.1",
    b"POST /x\x00 HTTP/1.1", b"Host: a", b"Host: a", b"Host: a", b"host: b",
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 099 X",
    b"HTTP/1.1 999 X", b"HTTP/2 200", b"ICY 200 OK", b"HTTP/1.1 500 \xff",
]  # fmt: skip


def wires(starts: list[bytes]) -> st.SearchStrategy[bytes]:
    """Pieces of HTTP with line ends between them, and a little noise; the first is mostly a start line."""
    piece = st.sampled_from(starts) | st.sampled_from(FRAMING) | st.sampled_from(BODIES) | st.binary(max_size=4)
    pair = st.tuples(piece, st.sampled_from(LINE_ENDS)).map(b"".join)
    first = st.tuples(st.sampled_from(starts), st.just(b"\r\n")).map(b"".join)
    good = st.sampled_from([b"Host: a\r\n", b"Host: a\r\nContent-Length: 5\r\n\r\nhello", b""])
    return st.tuples(first, good, st.lists(pair, max_size=14).map(b"".join)).map(b"".join)


CUTS = st.lists(st.integers(0, 300), max_size=12)
BAD_LENGTH = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


class Message:
    """What llhttp makes of bytes that we have written."""

    def __init__(self) -> None:
        self.complete = 0
        self.body = b""

    def on_message_complete(self) -> None:
        self.complete += 1

    def on_body(self, data: bytes) -> None:
        self.body += data


@settings(max_examples=120)
@given(wires(REQUESTS), CUTS)
@example(BAD_LENGTH, [])
@example(b"PRI * HTTP/2.0\r\nHost: a\r\nPOST /x HTTP/1.1\nPOST /x HTTP/1.1\r\n\r\n", [])
def test_a_clients_bytes_mean_the_same_however_they_are_cut(wire: bytes, cuts: list[int]):
    whole, cut, trickled = (FakeClient(answers_at_once=True) for _ in range(3))
    whole.send(wire)
    cut.send(*split_at(wire, cuts))
    trickled.send(*(bytes([byte]) for byte in wire))
    assert cut.requests == whole.requests == trickled.requests
    assert cut.statuses == whole.statuses == trickled.statuses


@settings(max_examples=120)
@given(wires(REQUESTS))
def test_whatever_is_handed_over_leaves_as_one_request_that_others_read_alike(wire: bytes):
    client = FakeClient(answers_at_once=True)
    client.send(wire)
    for exchange in client.exchanges:
        message = Message()
        parser = httptools.HttpRequestParser(message)
        sent = exchange.head.outgoing(b"worker", len(exchange.body)) + exchange.body
        parser.feed_data(sent)
        assert message.complete == 1
        assert message.body == exchange.body
        lines = sent[: sent.index(b"\r\n\r\n")].lower().split(b"\r\n")[1:]
        names = [line.partition(b":")[0] for line in lines]
        assert names.count(b"host") == 1
        assert names.count(b"content-length") <= 1
        assert not {b"transfer-encoding", b"connection", b"upgrade", b"te", b"expect", b"trailer"} & set(names)


@settings(max_examples=120)
@given(wires(ANSWERS), CUTS, st.booleans(), st.sampled_from([b"GET", b"HEAD", b"POST"]))
def test_a_workers_bytes_end_in_one_answer_or_one_failure_however_they_are_cut(
    wire: bytes, cuts: list[int], closes: bool, method: bytes
):
    ends = []
    for pieces in ([wire], split_at(wire, cuts), [bytes([byte]) for byte in wire]):
        relayed = Relayed(method + b" /x HTTP/1.1\r\nHost: a\r\n\r\n")
        relayed.answer(*pieces)
        is_open = relayed.source.released is None and not relayed.source.is_aborted
        if is_open and closes:
            relayed.exchange.source_closed("")
        assert len(relayed.listener.endings) <= 1
        if closes:
            assert len(relayed.listener.endings) == 1
        whole = relayed.client.keep_alive is not None and relayed.client.broken_off is None
        ends.append((tuple(relayed.listener.endings), relayed.client.written if whole else None))
        if whole and Ending.COMPLETE in relayed.listener.endings and method != b"HEAD":
            _is_one_answer(relayed.client.written, closed=relayed.client.keep_alive is False)
    assert ends[0] == ends[1] == ends[2]


def _is_one_answer(written: bytes, *, closed: bool) -> None:
    """Check that an answer which was passed on whole ends where it should, by llhttp's reading."""
    while written[9:10] == b"1":  # interim answers before it
        written = written[written.index(b"\r\n\r\n") + 4 :]
    message = Message()
    parser = httptools.HttpResponseParser(message)
    parser.feed_data(written)
    assert message.complete == 1 or (closed and message.complete == 0)


@pytest.mark.parametrize("junk", [b"", b"\x00" * 100, bytes(range(256)), b"\r\n" * 500, b"HTTP/1.1 " * 50])
def test_noise_alone_is_refused_by_both_sides(junk: bytes):
    client, relayed = FakeClient(answers_at_once=True), Relayed()
    client.send(junk + b"\r\n\r\n")
    relayed.answer(junk + b"\r\n\r\n")
    relayed.exchange.source_closed("")
    assert client.requests == []
    assert len(relayed.listener.endings) == 1
    assert relayed.listener.endings[0] is not Ending.COMPLETE
