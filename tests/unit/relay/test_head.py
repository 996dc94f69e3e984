"""What of a head passes on, and what is made of it."""

import contextlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.relay.answer_heads import AnswerHead, BadAnswerError
from router_core.relay.request_head import BadRequestError, RequestHead


def request_head(*lines, start=b"POST /x HTTP/1.1", host=b"Host: router\r\n"):
    return RequestHead(start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def answer_head(*lines, start=b"HTTP/1.1 200 OK"):
    return AnswerHead(start + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


# --- requests ---


def test_end_to_end_headers_pass_in_order_and_spelling_repeated_ones_too():
    head = request_head(b"X-b: 1", b"accept: */*", b"X-B: 2", b"AUTHORIZATION:Bearer k", b"X-Latin: \xff", b"X-Empty:")
    assert head.outgoing(b"worker:1", 0) == (
        b"POST /x HTTP/1.1\r\nHost: worker:1\r\nX-b: 1\r\naccept: */*\r\nX-B: 2\r\nAUTHORIZATION: Bearer k\r\n"
        b"X-Latin: \xff\r\nX-Empty: \r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic x",
        b"Proxy-Authenticate: Basic",
        b"TE: trailers",
        b"Trailer: X-Sum",
        b"Transfer-Encoding: chunked",
        b"Upgrade: websocket",
        b"HTTP2-Settings: x",
        b"Expect: 100-continue",
        b"Cookie: secret=1",
        b"Content-Length: 0",
    ],
)
def test_what_speaks_of_this_connection_alone_and_cookies_stay_here(line):
    assert request_head(b"X-A: 1", line).outgoing(b"w", 3) == (
        b"POST /x HTTP/1.1\r\nHost: w\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n"
    )


def test_fields_that_connection_names_stay_here_wherever_they_stand():
    head = request_head(b"X-Mine: 1", b"Connection: close, x-mine", b"X-Other: 2", b"connection: X-Also", b"x-also: 3")
    assert head.outgoing(b"w", 0) == b"POST /x HTTP/1.1\r\nHost: w\r\nX-Other: 2\r\nContent-Length: 0\r\n\r\n"
    assert not head.keep_alive


def test_naming_framing_fields_in_connection_does_not_hide_them():
    head = request_head(b"Connection: content-length, host", b"Content-Length: 5")
    assert head.content_length == 5
    assert b"Host: w\r\n" in head.outgoing(b"w", 5)


def test_a_request_without_body_gets_no_length_unless_its_method_wants_one():
    assert request_head(start=b"GET / HTTP/1.1").outgoing(b"w", 0) == b"GET / HTTP/1.1\r\nHost: w\r\n\r\n"
    assert b"Content-Length: 2\r\n" in request_head(start=b"DELETE / HTTP/1.1").outgoing(b"w", 2)


@pytest.mark.parametrize(
    ("target", "passed_on", "path"),
    [
        (b"/v1/models?a=/b", b"/v1/models?a=/b", b"/v1/models"),
        (b"http://h/v1/x?q", b"/v1/x?q", b"/v1/x"),
        (b"HTTPS://user@h:1/v1/x", b"/v1/x", b"/v1/x"),
        (b"http://h", b"/", b"/"),
        (b"http://h?q=/v1/x", b"/?q=/v1/x", b"/"),
        (b"/a%2fb//c", b"/a%2fb//c", b"/a%2fb//c"),
    ],
)
def test_a_target_becomes_a_path_and_its_query(target, passed_on, path):
    head = request_head(start=b"GET " + target + b" HTTP/1.1")
    assert (head.target, head.path) == (passed_on, path)


def test_options_of_the_whole_server_keeps_its_star():
    assert request_head(start=b"OPTIONS * HTTP/1.1").path == b"*"


@pytest.mark.parametrize(
    ("version", "connection", "keeps_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"X, Close", False),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_the_version_and_connection_say_whether_the_connection_is_kept(version, connection, keeps_alive):
    lines = [b"Connection: " + connection] if connection else []
    assert request_head(*lines, start=b"GET / HTTP/" + version).keep_alive is keeps_alive


def test_an_http_1_0_request_needs_no_host():
    assert (
        request_head(start=b"GET / HTTP/1.0", host=b"").outgoing(b"w", 0).startswith(b"GET / HTTP/1.1\r\nHost: w\r\n")
    )


def test_an_upgrade_is_ignored_and_the_body_after_it_counted():
    head = request_head(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 7")
    assert head.content_length == 7
    assert b"pgrade" not in head.outgoing(b"w", 7)


VALID = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\n"
    b"X-Session-Id: s\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\r\n"
)


@given(st.data())
def test_a_mutated_head_is_refused_or_passes_as_a_head_that_llhttp_reads_alike(data):
    head = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(head)))
        match data.draw(st.sampled_from(["insert", "replace", "delete", "repeat"])):
            case "insert":
                head[place:place] = data.draw(
                    st.sampled_from([b"\r", b"\n", b"\0", b" ", b":", b"\t", b"\r\n", b"\xff"])
                )
            case "replace":
                head[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "delete":
                del head[place : place + data.draw(st.integers(1, 9))]
            case "repeat":
                head[place:place] = head[place : place + data.draw(st.integers(1, 60))]
    raw = bytes(head).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        parsed = RequestHead(raw)
    except BadRequestError:
        return
    httptools.HttpRequestParser(object()).feed_data(raw)
    again = RequestHead(parsed.outgoing(b"w", parsed.content_length or 0))
    assert (again.method, again.target, again.path) == (parsed.method, parsed.target, parsed.path)
    assert again.content_length == (parsed.content_length or 0)
    assert not again.is_chunked


# --- answers ---


def test_an_answer_head_passes_but_for_what_speaks_of_the_workers_connection():
    head = answer_head(
        b"Content-Type: text/event-stream",
        b"set-cookie: a",
        b"Set-Cookie: b",
        b"Connection: keep-alive, X-Own",
        b"Keep-Alive: timeout=5",
        b"X-Own: 1",
        b"Transfer-Encoding: chunked",
        b"Proxy-Authenticate: Basic",
        b"Upgrade: h2c",
        b"Trailer: X-Sum",
        start=b"HTTP/1.1 200 Fine",
    )
    assert head.outgoing(b"F: 1\r\n") == (
        b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nset-cookie: a\r\nSet-Cookie: b\r\n"
        b"Trailer: X-Sum\r\nF: 1\r\n\r\n"
    )


def test_an_answer_without_a_reason_gets_the_usual_one():
    assert answer_head(start=b"HTTP/1.1 404").outgoing(b"") == b"HTTP/1.1 404 Not Found\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "lines", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK", [], True),
        (b"HTTP/1.1 200 OK", [b"Connection: Close"], False),
        (b"HTTP/1.0 200 OK", [], False),
        (b"HTTP/1.0 200 OK", [b"Connection: keep-alive"], True),
    ],
)
def test_an_answer_says_whether_its_connection_is_kept(start, lines, keeps_alive):
    assert answer_head(*lines, start=start).keep_alive is keeps_alive


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 99 Short\r\n\r\n",
        b"HTTP/1.1 1000 Long\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_that_is_malformed_or_ambiguous_is_refused(head):
    with pytest.raises(BadAnswerError):
        AnswerHead(head)


@given(st.binary(max_size=120))
def test_no_answer_head_whatever_it_holds_does_worse_than_being_refused(rest):
    head = b"HTTP/1.1 " + rest.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    with contextlib.suppress(BadAnswerError):
        AnswerHead(head).outgoing(b"")
