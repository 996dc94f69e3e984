"""A client's connection: one request after another, in order, within limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.relay.parties import Ending

from .fakes import FakeClient, FakeDestination, Recorder, split_at

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
CUTS = st.lists(st.integers(0, 3000), max_size=12)


def post(body, target=b"/x", *lines):
    head = b"".join(line + b"\r\n" for line in (b"Host: h", b"Content-Length: %d" % len(body), *lines))
    return b"POST " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + body


def chunked(*chunks, lines=b""):
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST /x HTTP/1.1\r\nHost: h\r\n" + lines + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@st.composite
def requests(draw):
    """Valid requests, as bytes and as what they mean."""
    wire, meanings = b"", []
    for number in range(draw(st.integers(1, 5))):
        target = b"/%d" % number
        wire += draw(st.sampled_from([b"", b"", b"\r\n", b"\r\n\r\n"]))
        body = draw(st.binary(max_size=200))
        kind = draw(st.sampled_from(["get", "sized", "chunked"]))
        if kind == "get":
            wire += b"GET " + target + b" HTTP/1.1\r\nHost: h\r\nX: \xff\r\n\r\n"
            meanings.append((b"GET", target, b""))
            continue
        if kind == "sized":
            wire += post(body, target)
        else:
            cut = draw(st.integers(0, len(body)))
            pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
            wire += chunked(*pieces).replace(b"/x", target, 1)
        meanings.append((b"POST", target, body))
    return wire, meanings


# --- reading ---


@given(requests(), CUTS)
def test_however_the_bytes_are_cut_the_same_requests_are_handed_over(sent, cuts):
    wire, meanings = sent
    client = FakeClient(answers_at_once=True)

    client.send(*split_at(wire, cuts))

    assert client.requests == meanings
    assert client.statuses == [200] * len(meanings)
    assert client.server.buffered_bytes == 0


@given(requests(), CUTS, st.data())
def test_pipelined_requests_are_handed_over_one_by_one_in_order(sent, cuts, data):
    wire, meanings = sent
    client = FakeClient()
    pieces = split_at(wire, cuts)

    while pieces or len(client.exchanges) > client.statuses.count(200):
        is_running = len(client.exchanges) > client.statuses.count(200)
        if is_running and (not pieces or data.draw(st.booleans())):
            client.exchanges[-1].respond(200, b"{}")
        else:
            client.send(pieces.pop(0))
        assert len(client.exchanges) - client.statuses.count(200) in (0, 1)

    assert client.requests == meanings


@pytest.mark.parametrize("body", [b"", b"x", b"\xff\x00\r\n\r\n{", b"x" * 1_000_000], ids=["0", "1", "binary", "1 MB"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
def test_a_body_is_handed_over_exactly(body, is_chunked):
    client = FakeClient()
    wire = chunked(*([body] if body else [])) if is_chunked else post(body)
    client.send(*split_at(wire, [*range(0, len(wire), 65536)]))
    assert client.requests == [(b"POST", b"/x", body)]


def test_a_request_trickled_byte_by_byte_is_handed_over_at_its_last_byte():
    client = FakeClient()
    for wire in (post(b"hello"), chunked(b"hello", b"world")):
        client.send(*(bytes([byte]) for byte in wire[:-1]))
        count = len(client.exchanges)
        client.send(wire[-1:])
        assert len(client.exchanges) == count + 1
        client.exchanges[-1].respond(200, b"{}")
    assert [body for _, _, body in client.requests] == [b"hello", b"helloworld"]


def test_a_body_in_tiny_chunks_is_kept_in_few_pieces():
    client = FakeClient()
    client.send(chunked(*[b"ab"] * 5000)[:-1])
    assert len(client.protocol._body) == 1
    client.send(b"\n")
    assert client.exchanges[0].body == b"ab" * 5000


def test_a_client_that_expects_100_continue_gets_it_before_its_body_is_read():
    client = FakeClient()
    head, _, body = post(b"hello", b"/x", b"Expect: 100-Continue").partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.answer == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert client.requests == [(b"POST", b"/x", b"hello")]


@pytest.mark.parametrize(
    "wire",
    [
        post(b"hello", b"/x", b"Expect: 100-continue"),  # the body came with it
        post(b"", b"/x", b"Expect: 100-continue"),  # there is no body
        post(b"hello", b"/x", b"Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0").removesuffix(b"hello"),
    ],
)
def test_no_100_continue_is_sent_to_those_who_do_not_wait_for_it(wire):
    client = FakeClient()
    client.send(wire)
    assert b"100" not in client.answer


def test_a_pipelined_100_continue_comes_after_the_answer_before_it():
    client = FakeClient()
    client.send(GET + post(b"hello", b"/x", b"Expect: 100-continue").removesuffix(b"hello"))
    assert client.answer == b""
    client.exchanges[0].respond(200, b"{}")
    assert client.statuses == [200, 100]


def test_an_upgrade_on_a_post_is_ignored_and_its_body_read():
    client = FakeClient(answers_at_once=True)
    client.send(post(b"GET /no", b"/x", b"Connection: Upgrade", b"Upgrade: websocket") + GET)
    assert client.requests == [(b"POST", b"/x", b"GET /no"), (b"GET", b"/a", b"")]


def test_many_pipelined_requests_do_not_exhaust_the_stack_and_leave_turns_to_others():
    client = FakeClient(answers_at_once=True)
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(5000)))
    before = len(client.exchanges)
    assert before < 100
    client.send(b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n")  # it comes while others have their turn
    assert len(client.exchanges) == before
    while client.clock.turn():
        assert len(client.exchanges) <= before + 100
        before = len(client.exchanges)
    assert [exchange.head.target for exchange in client.exchanges] == [*(b"/%d" % n for n in range(5000)), b"/last"]
    assert len(client.statuses) == 5001


def test_a_client_that_is_cut_while_others_have_their_turn_is_read_no_further():
    client = FakeClient(answers_at_once=True)
    client.send(GET * 200)
    count = len(client.exchanges)
    client.protocol.connection_lost(None)
    client.transport.abort()
    client.clock.turn()
    assert len(client.exchanges) == count < 200


# --- limits ---


def test_a_body_declared_over_the_limit_is_refused_without_reading_or_continuing_it():
    client = FakeClient(max_body_bytes=10)
    client.send(post(b"x" * 11, b"/x", b"Expect: 100-continue").removesuffix(b"x" * 11))
    assert client.statuses == [413]
    client.send(b"x" * 11 + GET)
    assert (client.statuses, client.exchanges) == ([413], [])


def test_a_chunked_body_over_the_limit_is_refused_as_soon_as_it_is():
    client = FakeClient(max_body_bytes=10)
    client.send(chunked(b"x" * 6, b"x" * 5)[:-7])
    assert (client.statuses, client.exchanges) == ([413], [])


def test_a_chunk_announced_over_the_limit_is_refused_before_it_comes():
    client = FakeClient(max_body_bytes=10)
    client.send(chunked().removesuffix(b"0\r\n\r\n") + b"4\r\nxxxx\r\n")
    assert client.statuses == []
    client.send(b"ffffffffffffffff\r\n")
    assert (client.statuses, client.exchanges) == ([413], [])


def test_bodies_as_large_as_the_limit_are_served():
    client = FakeClient(answers_at_once=True, max_body_bytes=10)
    client.send(post(b"x" * 10), chunked(b"x" * 6, b"x" * 4), chunked(b"x" * 10))
    assert client.statuses == [200, 200, 200]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_head_over_the_limit_is_refused(piece):
    client = FakeClient(max_head_bytes=200)
    wire = b"GET /a HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 200 + b"\r\n\r\n"
    client.send(*split_at(wire, [*range(0, len(wire), piece)]))
    assert (client.statuses, client.exchanges) == ([431], [])


def test_a_head_as_large_as_the_limit_is_served():
    client = FakeClient(max_head_bytes=200)
    filler = b"x" * (200 - len(GET) - len(b"X: \r\n"))
    client.send(GET[:-2] + b"X: " + filler + b"\r\n\r\n")
    assert len(client.exchanges) == 1


def test_a_long_body_behind_a_head_does_not_count_as_head():
    client = FakeClient(max_head_bytes=200)
    client.send(post(b"x" * 1000))
    assert len(client.exchanges) == 1


def test_an_endless_flood_of_empty_lines_is_no_request_and_is_not_kept():
    client = FakeClient(max_head_bytes=200)
    client.send(b"\r\n" * 50 + GET)
    assert len(client.exchanges) == 1
    client.exchanges[0].respond(200, b"{}")
    client.send(*[b"\r\n" * 50_000] * 4, b"\r")
    assert client.statuses == [200, 400]
    assert not client.protocol._buffer


# --- time ---


def test_a_client_that_says_nothing_is_closed_without_an_answer():
    client = FakeClient(head_timeout_s=30)
    client.wait(29)
    assert not client.transport.is_closing()
    client.wait(1)
    assert client.transport.is_closed
    assert client.answer == b""


def test_a_head_that_trickles_in_is_timed_from_its_first_byte():
    client = FakeClient(answers_at_once=True, head_timeout_s=30, keep_alive_timeout_s=75)
    client.send(GET)
    client.wait(70)
    client.send(b"GET ")
    client.wait(4)
    client.send(b"/a HTTP/1.1\r\n")
    assert client.statuses == [200]
    client.wait(1)  # the 75 s between two requests are over, though not the 30 s for a head
    assert client.statuses == [200, 408]

    client = FakeClient(answers_at_once=True, head_timeout_s=30, keep_alive_timeout_s=75)
    client.send(GET)
    for byte in b"GET /trickled HTTP/1.1\r\nHost: h"[:30]:
        assert client.statuses == [200]
        client.send(bytes([byte]))
        client.wait(1)
    assert client.statuses == [200, 408]


def test_a_body_may_take_its_time_but_no_pause_may_be_long():
    client = FakeClient(body_timeout_s=60)
    wire = post(b"x" * 10)
    client.send(wire[:-10])
    for _ in range(9):
        client.wait(59)
        client.send(b"x")
    assert client.statuses == []
    client.wait(60)
    assert (client.statuses, client.exchanges) == ([408], [])


def test_after_100_continue_the_body_is_timed():
    client = FakeClient(body_timeout_s=60)
    client.send(post(b"hello", b"/x", b"Expect: 100-continue").removesuffix(b"hello"))
    client.wait(60)
    assert client.statuses == [100, 408]


def test_an_idle_connection_is_kept_for_a_time_and_closed_in_good_order():
    client = FakeClient(answers_at_once=True, keep_alive_timeout_s=75)
    client.send(GET)
    client.wait(74)
    client.send(GET)
    client.wait(74)
    assert not client.transport.is_closing()
    client.wait(1)
    assert client.transport.is_closed
    assert client.statuses == [200, 200]


def test_a_running_request_is_not_bound_by_the_times_for_reading():
    client = FakeClient(head_timeout_s=1, body_timeout_s=1, keep_alive_timeout_s=1, request_timeout_s=100)
    client.send(post(b"hello"))
    client.wait(99)
    client.exchanges[0].respond(200, b"{}")
    assert client.statuses == [200]


def test_a_refused_client_may_go_on_uploading_for_a_while_and_is_then_cut_off():
    client = FakeClient(max_body_bytes=10)
    client.send(post(b"x" * 11)[:-11])
    assert client.transport.has_eof
    client.send(b"x" * 100_000)
    client.wait(1.9)
    assert not client.transport.is_closing()
    client.send(b"x" * 100_000)
    client.wait(0.1)
    assert client.transport.is_aborted
    assert client.statuses == [413]


def test_a_closed_connection_whose_client_reads_nothing_is_cut_off_in_the_end():
    client = FakeClient(answers_at_once=True, keep_alive_timeout_s=75)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.transport.is_closed
    client.protocol.pause_writing()
    client.wait(75)
    assert not client.transport.is_aborted  # it may read, if slowly: what it has not read is noted now
    client.wait(75)
    assert client.transport.is_aborted


def test_a_client_that_reads_the_end_of_its_answer_slowly_gets_all_of_it():
    client = FakeClient(answers_at_once=True, keep_alive_timeout_s=75)
    client.send(GET)
    client.protocol.pause_writing()
    for unread in range(90_000, 0, -10_000):
        client.wait(75)
        assert not client.transport.is_aborted
        client.transport.unread = unread
    client.transport.unread = 0
    client.protocol.resume_writing()
    client.wait(75)
    assert client.transport.is_closed
    assert not client.transport.is_aborted


def test_a_kept_connection_whose_client_reads_nothing_is_cut_off_in_the_end():
    client = FakeClient(answers_at_once=True, keep_alive_timeout_s=75)
    client.send(GET)
    client.protocol.pause_writing()
    client.send(GET)
    client.wait(75)
    client.wait(75)
    assert client.transport.is_aborted
    assert client.statuses == [200]


def test_a_request_out_of_time_that_nobody_answers_ends_its_connection():
    client = FakeClient(request_timeout_s=100)
    client.send(GET)  # its decider neither forwards nor answers
    client.wait(100)
    assert client.transport.is_aborted


def test_a_worker_out_of_time_is_aborted_and_its_listener_may_answer():
    client = FakeClient(request_timeout_s=100)
    client.send(GET)
    [exchange] = client.exchanges
    worker, listener = FakeDestination(), Recorder()
    listener.on_end = lambda ending: exchange.respond(504, ending.name.encode())
    exchange.forward(worker, listener)
    client.wait(100)
    assert worker.sources[0].is_aborted
    assert client.statuses == [504]
    assert client.answer.endswith(b"TIMEOUT")
    assert not client.transport.is_closing()


# --- a client that reads slowly ---


def test_while_the_client_does_not_read_the_next_request_waits():
    client = FakeClient(answers_at_once=True)
    client.send(GET)
    client.protocol.pause_writing()
    client.send(GET, GET)
    assert client.statuses == [200]
    client.protocol.resume_writing()
    assert client.statuses == [200, 200, 200]


def test_a_client_that_stops_reading_while_it_is_answered_at_once_holds_its_next_request_up():
    client = FakeClient(answers_at_once=True)
    write, client.protocol.write = client.protocol.write, None

    def write_and_clog(data):
        write(data)
        client.protocol.pause_writing()

    client.protocol.write = write_and_clog
    client.send(GET * 3)
    assert client.statuses == [200]
    for count in (2, 3):
        client.protocol.resume_writing()
        assert client.statuses == [200] * count


def test_more_pipelined_than_is_kept_is_not_read_until_there_is_room():
    client = FakeClient()
    client.send(GET, b"".join([post(b"x" * 100_000)] * 4))
    assert not client.transport.is_reading
    client.exchanges[0].respond(200, b"{}")
    assert not client.transport.is_reading or len(client.protocol._buffer) <= 262_144
    while client.exchanges[-1].status is None:
        client.exchanges[-1].respond(200, b"{}")
    assert client.transport.is_reading
    assert len(client.exchanges) == 5


def test_a_worker_is_held_back_while_the_client_does_not_read():
    client = FakeClient()
    client.send(GET)
    worker = FakeDestination()
    client.exchanges[0].forward(worker, Recorder())
    client.protocol.pause_writing()
    assert worker.sources[0].is_paused
    client.protocol.resume_writing()
    assert not worker.sources[0].is_paused


def test_a_worker_asked_anew_is_held_back_too():
    client = FakeClient()
    client.send(GET)
    [exchange] = client.exchanges
    first, second = FakeDestination(), FakeDestination()
    retry = Recorder()
    retry.on_end = lambda ending: exchange.forward(second, Recorder())
    exchange.forward(first, retry)
    client.protocol.pause_writing()
    exchange.source_closed("reset")
    assert second.sources[0].is_paused
    client.protocol.resume_writing()
    assert not second.sources[0].is_paused


# --- endings ---


def test_after_the_answer_to_a_last_request_nothing_more_is_read():
    client = FakeClient()
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    client.send(last + GET)
    client.exchanges[0].respond(200, b"{}")
    assert client.transport.is_closed
    client.protocol.resume_writing()  # the answer has left; the socket is not yet closed
    assert len(client.exchanges) == 1
    assert b"Connection: close\r\n" in client.answer


def test_a_last_request_answered_at_once_ends_the_pipeline():
    client = FakeClient(answers_at_once=True)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    client.protocol.pause_writing()
    client.protocol.resume_writing()
    assert client.statuses == [200]


@pytest.mark.parametrize(
    ("lines", "keeps"), [(b"", False), (b"Connection: keep-alive\r\n", True), (b"Connection: close\r\n", False)]
)
def test_an_http_1_0_client_keeps_its_connection_only_if_it_asks_to(lines, keeps):
    client = FakeClient(answers_at_once=True)
    client.send(b"GET /a HTTP/1.0\r\n" + lines + b"\r\n" + GET)
    assert client.statuses == ([200, 200] if keeps else [200])
    assert (b"Connection: keep-alive\r\n" in client.answer) is keeps
    assert (b"Connection: close\r\n" in client.answer) is not keeps


@pytest.mark.parametrize("how", ["lost", "eof"])
def test_a_client_that_hangs_up_aborts_its_worker_and_drops_what_it_pipelined(how):
    client = FakeClient()
    client.send(GET + GET)
    worker, listener = FakeDestination(), Recorder()
    client.exchanges[0].forward(worker, listener)
    if how == "eof":
        client.protocol.eof_received()
        assert client.transport.is_aborted
    client.protocol.connection_lost(None)
    assert worker.sources[0].is_aborted
    assert listener.endings == [Ending.CLIENT_GONE]
    assert len(client.exchanges) == 1
    assert not client.server.connections


def test_a_request_decided_after_its_client_has_gone_is_not_sent():
    client = FakeClient()
    client.send(GET + GET)
    [exchange] = client.exchanges
    client.protocol.connection_lost(None)
    worker, listener = FakeDestination(), Recorder()
    exchange.forward(worker, listener)
    exchange.respond(200, b"{}")
    assert worker.sources == []
    assert listener.endings == [Ending.CLIENT_GONE]
    assert (client.answer, len(client.exchanges)) == (b"", 1)


def test_a_draining_server_answers_with_close_and_serves_what_has_begun():
    client = FakeClient()
    client.send(GET[:10])
    client.server.is_draining = True
    client.protocol.drain()
    client.send(GET[10:] + GET)
    client.exchanges[0].respond(200, b"{}")
    assert client.transport.is_closed
    assert b"Connection: close\r\n" in client.answer
    assert len(client.exchanges) == 1


def test_an_answer_that_promised_to_keep_the_connection_is_closed_after_it_once_the_server_is():
    client = FakeClient()
    client.send(GET)
    [exchange] = client.exchanges
    exchange.forward(FakeDestination(), Recorder())
    exchange.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    client.server.is_draining = client.server.is_closed = True
    client.protocol.drain()
    assert not client.transport.is_closing()
    exchange.feed(b"cd")
    assert client.transport.is_closed
    assert client.answer.endswith(b"abcd")


def test_a_client_that_comes_while_the_server_closes_is_turned_away():
    client = FakeClient()
    client.server.is_draining = client.server.is_closed = True
    late = type(client.protocol)(client.server)
    transport = type(client.transport)()
    late.connection_made(transport)
    assert transport.is_aborted


def test_aborting_an_answer_that_ends_by_close_resets_the_connection():
    client = FakeClient()
    client.send(GET)
    [exchange] = client.exchanges
    exchange.forward(FakeDestination(), Recorder())
    exchange.feed(b"HTTP/1.0 200 OK\r\n\r\nhalf")
    client.protocol.abort()
    assert client.transport.is_reset


def test_an_idle_connection_is_aborted_without_a_reset():
    client = FakeClient()
    client.protocol.abort()
    assert client.transport.is_aborted
    assert not client.transport.is_reset
