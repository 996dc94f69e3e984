"""A worker's answer on its way to the client: what passes, where it ends, and who is told when it does not end well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.relay.answer_heads import MAX_ANSWER_HEAD_BYTES
from router_core.relay.parties import Ending

from .fakes import Recorder, Relayed, split_at

CUTS = st.lists(st.integers(0, 600), max_size=10)
HTTP10 = b"GET /x HTTP/1.0\r\n\r\n"
HTTP10_KEPT = b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"


def sized(body, *lines, start=b"HTTP/1.1 200 OK"):
    return b"\r\n".join([start, *lines, b"Content-Length: %d" % len(body), b"", b""]) + body


def chunked(*chunks, lines=(), end=b"0\r\n\r\n"):
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Transfer-Encoding: chunked", b"", b""]) + body + end


@given(st.binary(max_size=300), CUTS)
def test_a_sized_answer_passes_exactly_however_it_is_cut(body, cuts):
    relayed = Relayed()
    wire = sized(body, b"X-A: 1")
    relayed.answer(*split_at(wire, cuts))
    assert relayed.client.written == wire
    assert relayed.client.keep_alive is True
    assert relayed.source.released is True
    assert relayed.listener.endings == [Ending.COMPLETE]
    assert len(relayed.listener.first_bytes) == (1 if body else 0)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5), CUTS)
def test_a_chunked_answer_passes_with_its_own_framing_however_it_is_cut(chunks, cuts):
    relayed = Relayed()
    wire = chunked(*chunks, end=b"0;last\r\nX-Sum: 1\r\n\r\n")
    relayed.answer(*split_at(wire, cuts))
    assert relayed.client.written == wire
    assert relayed.source.released is True


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5), CUTS)
def test_an_http_1_0_client_gets_a_chunked_answer_decoded_and_closed(chunks, cuts):
    relayed = Relayed(HTTP10_KEPT)
    relayed.answer(*split_at(chunked(*chunks), cuts))
    assert relayed.client.written == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"".join(chunks)
    assert relayed.client.keep_alive is False
    assert relayed.source.released is True


def test_an_answer_until_close_ends_with_the_connection_and_closes_the_clients():
    relayed = Relayed()
    relayed.answer(b"HTTP/1.1 200 OK\r\n\r\n", b"a", b"0\r\n\r\n")
    assert relayed.listener.endings == []
    relayed.exchange.source_closed("")
    assert relayed.client.written == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\na0\r\n\r\n"
    assert relayed.client.keep_alive is False
    assert relayed.source.released is False
    assert relayed.listener.endings == [Ending.COMPLETE]


@pytest.mark.parametrize(
    ("request_head", "line"),
    [(HTTP10, b"Connection: close\r\n"), (HTTP10_KEPT, b"Connection: keep-alive\r\n")],
)
def test_an_http_1_0_client_is_told_whether_its_connection_is_kept(request_head, line):
    relayed = Relayed(request_head)
    relayed.answer(sized(b"ab"))
    assert relayed.client.written == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + line + b"\r\nab"


def test_each_piece_of_a_stream_is_written_as_it_comes():
    relayed = Relayed()
    relayed.answer(chunked(end=b""))
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        before = len(relayed.client.written)
        relayed.answer(b"9\r\n" + event + b"\r\n")
        assert relayed.client.written[before:] == b"9\r\n" + event + b"\r\n"
    assert relayed.listener.first_bytes == [b"9\r\ndata: 1\n\n\r\n"]


# --- answers without a body ---


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_the_answer_to_head_ends_with_its_head(wire):
    relayed = Relayed(HEAD)
    relayed.answer(wire)
    assert relayed.client.written == wire.replace(b"Transfer-Encoding: chunked\r\n", b"")
    assert relayed.client.keep_alive is True
    assert relayed.source.released is True


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_answer_that_has_no_body_ends_with_its_head(wire):
    relayed = Relayed()
    relayed.answer(wire)
    assert relayed.client.written == wire
    assert relayed.source.released is True
    assert relayed.listener.first_bytes == []


def test_a_204_loses_a_length_it_must_not_have():
    relayed = Relayed()
    relayed.answer(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
    assert relayed.client.written == b"HTTP/1.1 204 No Content\r\n\r\n"


# --- interim answers ---

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@given(CUTS)
def test_interim_answers_are_not_the_end_and_all_but_100_pass(cuts):
    relayed = Relayed()
    relayed.answer(*split_at(INTERIM + sized(b"ab"), cuts))
    assert relayed.client.written == INTERIM.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n") + sized(b"ab")
    assert relayed.listener.endings == [Ending.COMPLETE]


@pytest.mark.parametrize("size", [7, 10_000])
def test_interim_answers_without_end_are_a_bad_answer(size):
    relayed = Relayed()
    endless = INTERIM * 34
    assert relayed.listener.endings == []
    relayed.answer(*(endless[start : start + size] for start in range(0, len(endless), size)))
    assert relayed.listener.endings == [Ending.BAD_ANSWER]
    assert relayed.exchange.error == "the worker sent more than 100 interim answers"


def test_an_http_1_0_client_gets_no_interim_answer():
    relayed = Relayed(HTTP10_KEPT)
    relayed.answer(INTERIM + sized(b"ab"))
    assert relayed.client.written.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_worker_lost_after_an_interim_answer_may_still_be_answered_for():
    relayed = Relayed()
    relayed.answer(INTERIM)
    relayed.exchange.source_closed("")
    assert relayed.exchange.status is None
    assert relayed.listener.endings == [Ending.CONNECTION_LOST]
    assert relayed.client.broken_off is None


@pytest.mark.parametrize("before", [b"", INTERIM])
def test_switching_protocols_is_refused(before):
    relayed = Relayed()
    relayed.answer(before + b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw")
    assert b"101" not in relayed.client.written
    assert relayed.listener.endings == [Ending.BAD_ANSWER]
    assert relayed.source.is_aborted


# --- connections to workers ---


@pytest.mark.parametrize("wire", [sized(b"ab"), chunked(b"ab"), sized(b""), chunked()])
@pytest.mark.parametrize("cut", [1, 3, 10_000])
def test_excess_bytes_after_an_answer_end_the_workers_connection_and_never_reach_the_client(wire, cut):
    relayed = Relayed()
    place = len(wire) - cut if cut < len(wire) else 0
    relayed.answer(*split_at(wire + b"HTTP/1.1 200 OK\r\n\r\nevil", [place]))
    assert relayed.client.written == wire
    assert relayed.client.keep_alive is True
    assert relayed.source.released is False
    assert relayed.listener.endings == [Ending.COMPLETE]
    assert b"evil" not in b"".join([*relayed.listener.first_bytes, relayed.exchange.tail])


@pytest.mark.parametrize(
    ("start", "line", "is_kept"),
    [
        (b"HTTP/1.1 200 OK", b"X: 1", True),
        (b"HTTP/1.1 200 OK", b"Connection: close", False),
        (b"HTTP/1.0 200 OK", b"X: 1", False),
        (b"HTTP/1.0 200 OK", b"Connection: keep-alive", True),
    ],
)
def test_a_workers_connection_is_kept_as_the_worker_says_and_the_clients_all_the_same(start, line, is_kept):
    relayed = Relayed()
    relayed.answer(sized(b"ab", line, start=start))
    assert relayed.source.released is is_kept
    assert relayed.client.keep_alive is True
    assert b"Connection" not in relayed.client.written


def test_a_client_that_closes_does_not_end_the_workers_connection():
    relayed = Relayed(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    relayed.answer(sized(b"ab"))
    assert relayed.client.keep_alive is False
    assert b"Connection: close\r\n" in relayed.client.written
    assert relayed.source.released is True


# --- replay ---


def test_a_reused_connection_that_dies_before_the_first_byte_is_replaced_once():
    relayed = Relayed(reuses=True)
    relayed.exchange.source_closed("reset")
    assert len(relayed.worker.sources) == 2
    assert relayed.listener.endings == []
    relayed.answer(sized(b"ab"))
    assert relayed.client.written == sized(b"ab")
    assert relayed.listener.endings == [Ending.COMPLETE]


@pytest.mark.parametrize("error", ["", "reset"])
def test_a_replay_is_not_replayed(error):
    relayed = Relayed(reuses=True)
    relayed.exchange.source_closed(error)
    relayed.exchange.source_closed(error)
    assert len(relayed.worker.sources) == 2
    assert relayed.listener.endings == [Ending.CONNECTION_LOST]


def test_a_fresh_connection_that_dies_is_not_replaced():
    relayed = Relayed()
    relayed.exchange.source_closed("")
    assert len(relayed.worker.sources) == 1
    assert relayed.listener.endings == [Ending.CONNECTION_LOST]


@pytest.mark.parametrize("sent", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", sized(b"ab")[:-1]])
def test_after_any_byte_of_an_answer_nothing_is_replayed(sent):
    relayed = Relayed(reuses=True)
    relayed.answer(sent)
    relayed.exchange.source_closed("")
    assert len(relayed.worker.sources) == 1
    assert relayed.listener.endings == [Ending.CONNECTION_LOST]


def test_nothing_is_replayed_for_a_client_that_has_gone():
    relayed = Relayed(reuses=True)
    relayed.exchange.client_gone()
    assert relayed.source.is_aborted
    assert len(relayed.worker.sources) == 1
    assert relayed.listener.endings == [Ending.CLIENT_GONE]


def test_a_replay_that_finds_nobody_does_not_say_that_nothing_was_sent():
    relayed = Relayed(reuses=True)
    relayed.exchange.source_closed("")
    relayed.exchange.connect_failed("refused")
    assert relayed.listener.endings == [Ending.GONE]
    assert relayed.exchange.error == "refused"


def test_a_failed_request_may_be_sent_again_from_on_end():
    relayed = Relayed()
    second = Recorder()
    relayed.listener.on_end = lambda ending: relayed.exchange.forward(relayed.worker, second)
    relayed.answer(b"HTTP/1.1 2")
    relayed.exchange.source_closed("reset")
    relayed.answer(sized(b"ab"))
    assert relayed.client.written == sized(b"ab")
    assert second.endings == [Ending.COMPLETE]
    assert relayed.exchange.error == ""


# --- broken answers ---

TRUNCATED = {
    "sized": (sized(b"abc")[:-1], "cut"),
    "chunked, in a chunk": (chunked(b"abc")[:-8], "cut"),
    "chunked, between chunks": (chunked(b"abc", end=b""), "cut"),
    "chunked, in the last line": (chunked(b"abc")[:-1], "cut"),
}


@pytest.mark.parametrize(("wire", "how"), TRUNCATED.values(), ids=TRUNCATED)
@pytest.mark.parametrize("error", ["", "reset"])
def test_an_answer_cut_short_is_broken_off_and_never_ended(wire, how, error):
    relayed = Relayed()
    relayed.answer(wire)
    relayed.exchange.source_closed(error)
    assert relayed.client.written == wire
    assert relayed.client.broken_off == how
    assert relayed.client.keep_alive is None
    assert relayed.listener.endings == [Ending.CONNECTION_LOST]


def test_an_answer_until_close_that_is_reset_does_not_look_whole():
    relayed = Relayed()
    relayed.answer(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    relayed.exchange.source_closed("reset")
    assert relayed.client.broken_off == "reset"
    assert relayed.listener.endings == [Ending.CONNECTION_LOST]


def test_a_chunked_answer_cut_short_does_not_look_whole_to_an_http_1_0_client():
    relayed = Relayed(HTTP10)
    relayed.answer(chunked(b"abc", end=b""))
    relayed.exchange.source_closed("")
    assert relayed.client.broken_off == "reset"


@pytest.mark.parametrize(
    "end", [b"zz\r\n", b"3\r\nabcd\r\n", b"+3\r\nabc\r\n", b"3\nabc\r\n", b"11111111111111111\r\n"]
)
def test_broken_chunks_end_the_answer_as_broken(end):
    relayed = Relayed()
    relayed.answer(chunked(b"abc", end=end))
    assert relayed.client.broken_off == "cut"
    assert relayed.source.is_aborted
    assert relayed.listener.endings == [Ending.BAD_ANSWER]


@pytest.mark.parametrize(
    "wire", [b"garbage\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", b"\x16\x03\x01\r\n\r\n"]
)
def test_a_head_that_is_none_is_a_bad_answer_of_which_the_client_sees_nothing(wire):
    relayed = Relayed()
    relayed.answer(wire)
    assert relayed.client.written == b""
    assert relayed.client.broken_off is None
    assert relayed.exchange.status is None
    assert relayed.source.is_aborted
    assert relayed.listener.endings == [Ending.BAD_ANSWER]


@pytest.mark.parametrize("piece", [1000, 10 * MAX_ANSWER_HEAD_BYTES])
def test_an_endless_head_is_a_bad_answer(piece):
    relayed = Relayed()
    wire = b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_ANSWER_HEAD_BYTES + b"\r\n\r\n"
    relayed.answer(*split_at(wire, [*range(0, len(wire), piece)]))
    assert relayed.listener.endings == [Ending.BAD_ANSWER]


# --- listeners ---


def test_a_listener_that_fails_does_not_leave_the_client_waiting():
    relayed = Relayed()

    def fail(ending):
        raise RuntimeError("a bug")

    relayed.listener.on_end = fail
    with pytest.raises(RuntimeError):
        relayed.answer(sized(b"ab"))
    assert relayed.client.keep_alive is True

    relayed = Relayed()
    relayed.listener.on_end = fail
    relayed.answer(sized(b"abc")[:-1])
    with pytest.raises(RuntimeError):
        relayed.exchange.source_closed("")
    assert relayed.client.broken_off == "cut"


@pytest.mark.parametrize("end", ["client_gone", "expire"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", sized(b"ab")[:-1]])
def test_the_end_is_told_once_whatever_comes_after_it(end, sent):
    relayed = Relayed()
    relayed.answer(sent)
    getattr(relayed.exchange, end)()
    relayed.exchange.client_gone()
    relayed.exchange.expire()
    assert relayed.listener.endings == [Ending.CLIENT_GONE if end == "client_gone" else Ending.TIMEOUT]
    assert relayed.source.is_aborted


def test_the_first_byte_is_told_once_and_only_of_a_body():
    relayed = Relayed()
    relayed.answer(INTERIM, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    assert relayed.listener.first_bytes == []
    relayed.answer(b"a", b"b", b"c")
    assert relayed.listener.first_bytes == [b"a"]


def test_the_tail_holds_the_last_reads_of_the_body():
    relayed = Relayed()
    relayed.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", *[bytes([byte]) for byte in b"abcdef"])
    assert relayed.exchange.tail == b"cdef"


# --- answers of the router's own ---


def test_the_routers_own_answer_to_head_has_no_body():
    relayed = Relayed(HEAD)
    relayed.exchange.respond(503, b'{"error": 1}', [("Retry-After", "1")])
    assert relayed.client.written.endswith(b"Content-Length: 12\r\nRetry-After: 1\r\n\r\n")
    assert relayed.client.keep_alive is True
