"""Requests of which two parties might disagree where they end: refused, closed after, never forwarded."""

import pytest

from .fakes import FakeClient

START = b"POST /v1/chat/completions HTTP/1.1\r\n"
POST = START + b"Host: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"

CORPUS = {
    # both lengths, doubled lengths, bad lengths
    "length beside coding": (400, POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    "coding beside length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG"),
    "coding beside length 0": (400, POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "both beside an upgrade": (
        400,
        POST
        + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (400, POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "the same length twice": (400, POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    "two lengths in other spelling": (400, POST + b"Content-Length: 1\r\ncontent-length: 2\r\n\r\nab"),
    "a list of lengths": (400, POST + b"Content-Length: 1, 1\r\n\r\na"),
    "a length with a plus": (400, POST + b"Content-Length: +1\r\n\r\na"),
    "a negative length": (400, POST + b"Content-Length: -1\r\n\r\na"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x1\r\n\r\na"),
    "a length with an underscore": (400, POST + b"Content-Length: 1_0\r\n\r\n0123456789"),
    "a length in two parts": (400, POST + b"Content-Length: 1 0\r\n\r\n0123456789"),
    "an empty length": (400, POST + b"Content-Length:\r\n\r\n"),
    "a length over 64 bits": (400, POST + b"Content-Length: 18446744073709551617\r\n\r\na"),
    "a length with a vertical tab": (400, POST + b"Content-Length: \x0b1\r\n\r\na"),
    # transfer codings
    "gzip, chunked": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "gzip and chunked on two lines": (
        501,
        POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked, then identity": (400, POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    "xchunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunked with a vertical tab": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "chunked in quotes": (400, POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    "chunked with a parameter": (400, POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    "an empty coding": (400, POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    "a coding with a space before the colon": (400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    "a folded coding": (400, POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "a coding behind a bare LF": (400, POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a coding behind a bare CR": (400, POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a coding in HTTP/1.0": (
        400,
        b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    ),
    # chunks
    "a chunk size with a plus": (400, CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with 0x": (400, CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with an underscore": (400, CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    "a negative chunk size": (400, CHUNKED + b"-1\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a space": (400, CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    "a chunk size over 64 bits": (400, CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "no chunk size": (400, CHUNKED + b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk size before a bare LF": (400, CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    "a chunk ended by a bare LF": (400, CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    "a chunk longer than its size": (400, CHUNKED + b"5\r\nhello!!0\r\n\r\n"),
    "a bare LF in a chunk extension": (400, CHUNKED + b"5;\nx\r\nhello\r\n0\r\n\r\n"),
    "a bare CR in a chunk extension": (400, CHUNKED + b"5;\rx\r\nhello\r\n0\r\n\r\n"),
    "NUL in a chunk extension": (400, CHUNKED + b"5;\x00\r\nhello\r\n0\r\n\r\n"),
    "chunk extensions over 4 KB in one line": (400, CHUNKED + b"1;" + b"x" * 5000 + b"\r\na\r\n0\r\n\r\n"),
    "chunk extensions over 4 KB in all": (
        400,
        CHUNKED + (b"1;" + b"x" * 500 + b"\r\na\r\n") * 9 + b"0\r\n\r\n",
    ),
    "a request as trailer": (400, CHUNKED + b"0\r\n" + SECOND),
    "a folded trailer": (400, CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n"),
    # lines
    "a bare LF after the request line": (400, b"POST /x HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LFs throughout": (400, b"POST /x HTTP/1.1\nHost: a\n\n"),
    "a bare LF in a header": (400, POST + b"X: a\nContent-Length: 1\r\n\r\na"),
    "a bare CR in a header": (400, POST + b"X: a\rb\r\n\r\n"),
    "a bare CR before CRLF": (400, POST + b"X: a\r\r\n\r\n"),
    "a bare LF before the request": (400, b"\n" + POST + END),
    "a bare CR before the request": (400, b"\r" + POST + END),
    "a bare LF behind an empty line": (400, b"\r\n\n" + POST + END),
    "a folded header": (400, POST + b"X: a\r\n\tb\r\n\r\n"),
    "a folded first header": (400, START + b" Host: a\r\n\r\n"),
    "a space before the colon": (400, POST + b"Content-Length : 1\r\n\r\na"),
    "a tab before the colon": (400, POST + b"Content-Length\t: 1\r\n\r\na"),
    "a header without a colon": (400, POST + b"Content-Length 1\r\n\r\n"),
    "a header without a name": (400, POST + b": a\r\n\r\n"),
    "NUL in a header's value": (400, POST + b"X: a\x00b\r\n\r\n"),
    "NUL in a header's name": (400, POST + b"X\x00: a\r\n\r\n"),
    "NUL in the target": (400, b"POST /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "NUL before the request": (400, b"\x00" + POST + END),
    "a space in the target": (400, b"POST /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a tab in the request line": (400, b"POST /a\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    "a space after the version": (400, b"POST /a HTTP/1.1 \r\nHost: a\r\n\r\n"),
    # Host
    "no Host": (400, START + b"\r\n"),
    "two Hosts": (400, POST + b"Host: b\r\n\r\n"),
    "the same Host twice": (400, POST + b"host: a\r\n\r\n"),
    "two Hosts in HTTP/1.0": (400, b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    # versions and protocols
    "HTTP/2.0": (505, b"POST /x HTTP/2.0\r\nHost: a\r\n\r\n"),
    "HTTP/1.2": (505, b"POST /x HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/3.0": (505, b"POST /x HTTP/3.0\r\nHost: a\r\n\r\n"),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /x\r\n\r\n"),
    "HTTP/0.9 in words": (400, b"GET /x HTTP/0.9\r\nHost: a\r\n\r\n"),
    "a version of two digits": (400, b"GET /x HTTP/1.10\r\nHost: a\r\n\r\n"),
    "http in lower case": (400, b"GET /x http/1.1\r\nHost: a\r\n\r\n"),
    "RTSP": (400, b"OPTIONS /x RTSP/1.0\r\nHost: a\r\n\r\n"),
    "ICE": (400, b"SOURCE /x ICE/1.0\r\nHost: a\r\n\r\n"),
    "a TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "a method in lower case": (400, b"post /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    # targets
    "CONNECT": (405, b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "CONNECT to a path": (405, b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a star for another method than OPTIONS": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an absolute target without host": (400, b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target of another scheme": (400, b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target without a slash": (400, b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
}


@pytest.mark.parametrize(("status", "wire"), CORPUS.values(), ids=CORPUS)
@pytest.mark.parametrize("is_trickled", [False, True], ids=["at once", "byte by byte"])
def test_an_ambiguous_request_is_refused_and_never_forwarded(status, wire, is_trickled):
    client = FakeClient(answers_at_once=True)

    client.send(*([bytes([byte]) for byte in wire + SECOND] if is_trickled else [wire + SECOND]))

    assert client.requests == []
    assert client.statuses == [status]
    assert b"Connection: close\r\n" in client.answer
    assert client.transport.has_eof
    assert {status for status, times in client.server.refusals.items() if times} == {status}


@pytest.mark.parametrize(("status", "wire"), CORPUS.values(), ids=CORPUS)
def test_behind_a_good_request_an_ambiguous_one_is_refused_all_the_same(status, wire):
    client = FakeClient(answers_at_once=True)

    client.send(SECOND + wire + SECOND)

    assert client.requests == [(b"GET", b"/second", b"")]
    assert client.statuses == [200, status]
