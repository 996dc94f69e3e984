"""Calls of the router's own, and answers that outlive their client."""

from __future__ import annotations

import pytest

from router_core.relay.exchange import Exchange
from router_core.relay.head_memory import HeadMemory
from router_core.relay.parties import Ending
from router_core.relay.passed_call import PassedCall
from router_core.relay.request_head import RequestHead
from router_core.relay.side_call import SideCall

from .fakes import FakeReceiver, Recorder

HEAD = RequestHead(b"POST /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nX-A: 1\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfo\r\n2\r\nur\r\n0\r\n\r\n"


class FakeSource:
    def __init__(self):
        self.told = []

    def abort(self):
        self.told.append("abort")

    def release(self, *, reusable):
        self.told.append(("release", reusable))

    def pause_reading(self):
        self.told.append("pause")

    def resume_reading(self):
        self.told.append("resume")


class FakeOrigin:
    """Sends on a kept connection first, then on new ones."""

    def __init__(self, *, is_reused=False, can_connect=True):
        self.can_connect = can_connect
        self.sources = []
        self.freshness = []
        self.is_reused = is_reused

    def send(self, call, *, fresh=False):
        self.freshness.append(fresh)
        source = FakeSource()
        self.sources.append(source)
        is_reused = self.is_reused and not fresh
        if self.can_connect or is_reused:
            call.sent(source, is_reused=is_reused)
        return source


def side_call(origin, **options):
    endings = []
    call = SideCall(HEAD, b"{}", max_bytes=10, on_end=lambda _, ending: endings.append(ending), **options)
    call.begin(origin)
    return call, endings


@pytest.mark.parametrize("answer", [OK, CHUNKED])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_is_collected_without_its_framing(answer, size):
    origin = FakeOrigin()
    call, endings = side_call(origin)
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer
    for start in range(0, len(answer), size):
        call.feed(answer[start : start + size])
    assert (call.status, call.content, endings) == (200, b"four", [Ending.COMPLETE])
    assert origin.sources[0].told == [("release", True)]


@pytest.mark.parametrize("size", [7, 10_000])
def test_interim_answers_without_end_are_a_bad_answer(size):
    call, endings = side_call(FakeOrigin())
    endless = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 101
    for start in range(0, len(endless), size):
        call.feed(endless[start : start + size])
    assert endings == [Ending.BAD_ANSWER]


def test_data_is_handed_on_as_it_comes_whatever_its_size():
    taken = []
    call, endings = side_call(FakeOrigin(), on_data=lambda _, data: taken.append(data))
    call.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + b"x" * 25)
    call.feed(b"y" * 15)
    assert (taken, endings, call.content) == ([b"x" * 25, b"y" * 15], [Ending.COMPLETE], b"")


def test_an_answer_that_ends_with_its_connection():
    origin = FakeOrigin()
    call, endings = side_call(origin)
    call.feed(b"HTTP/1.1 200 OK\r\n\r\nfo")
    call.feed(b"ur")
    call.source_closed("")
    assert (call.content, endings, origin.sources[0].told) == (b"four", [Ending.COMPLETE], [("release", False)])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
        b"SMTP\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_an_answer_that_is_too_large_or_broken_fails_once(answer):
    origin = FakeOrigin()
    call, endings = side_call(origin)
    call.feed(answer)
    call.feed(b"more")
    assert (endings, origin.sources[0].told) == ([Ending.BAD_ANSWER], ["abort"])
    assert call.error


def test_a_kept_connection_that_was_dead_is_replaced_once_and_unseen():
    origin = FakeOrigin(is_reused=True)
    call, endings = side_call(origin)
    call.source_closed("reset")
    assert (origin.freshness, endings) == ([False, True], [])
    call.source_closed("reset")
    assert (origin.freshness, endings) == ([False, True], [Ending.CONNECTION_LOST])


def test_nothing_was_sent_only_if_no_connection_was_ever_there():
    """Whoever was sent a request may have begun with it, though it cannot be reached any more."""
    for is_reused, ending in ((False, Ending.CONNECT_FAILED), (True, Ending.GONE)):
        origin = FakeOrigin(is_reused=is_reused, can_connect=False)
        call, endings = side_call(origin)
        assert call.was_sent is is_reused
        if is_reused:
            call.source_closed("reset")
        call.connect_failed("refused")
        assert endings == [ending]


def test_a_kept_connection_that_answered_is_not_replaced():
    origin = FakeOrigin(is_reused=True)
    call, endings = side_call(origin)
    call.feed(OK[:-1])
    call.source_closed("reset")
    assert (origin.freshness, endings) == ([False], [Ending.CONNECTION_LOST])


def test_nothing_is_heard_of_an_aborted_call():
    origin = FakeOrigin()
    call, endings = side_call(origin)
    call.abort()
    call.feed(OK)
    call.source_closed("reset")
    assert (endings, origin.sources[0].told[:1]) == ([], ["abort"])


# --- an answer that is passed on ---


class Through:
    """What stands between an exchange and its call, as whoever decides does."""

    def __init__(self, call_made):
        self.call = None
        self.answer_heads = HeadMemory()
        self._call_made = call_made

    def send(self, exchange, *, fresh=False):
        self.call = self._call_made(exchange)
        return self

    def abort(self):
        self.call.detach()

    def release(self, *, reusable):
        self.call.release(reusable=reusable)

    def pause_reading(self):
        self.call.pause()

    def resume_reading(self):
        self.call.resume()


def passed_call(origin):
    losses, orphaned = [], []
    client = FakeReceiver()
    exchange = Exchange(client, HEAD, b"{}")

    def make(exchange):
        call = PassedCall(
            HEAD,
            b"{}",
            exchange,
            on_loss=lambda ending, _: losses.append(ending),
            on_orphaned=lambda: orphaned.append(True),
        )
        call.begin(origin)
        return call

    through, listener = Through(make), Recorder()
    exchange.forward(through, listener)
    return through.call, exchange, client, listener, losses, orphaned


def test_a_good_head_waits_for_its_body_and_an_error_does_not():
    call, _, client, *_ = passed_call(FakeOrigin())
    head, _, body = OK.partition(b"\r\n\r\n")
    call.feed(head + b"\r\n\r\n")
    assert client.written == b""
    call.feed(body)
    assert client.written.endswith(b"\r\n\r\nfour")
    call, _, client, *_ = passed_call(FakeOrigin())
    call.feed(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\n")
    assert client.written.startswith(b"HTTP/1.1 500 ")


def test_an_empty_good_answer_is_passed_on():
    call, _, client, listener, *_ = passed_call(FakeOrigin())
    call.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.written.startswith(b"HTTP/1.1 200 ")
    assert listener.endings == [Ending.COMPLETE]


def test_a_client_that_goes_cuts_nothing_and_the_answer_is_noticed():
    origin = FakeOrigin()
    call, exchange, client, listener, losses, orphaned = passed_call(origin)
    call.pause()
    exchange.client_gone()
    assert (origin.sources[0].told, listener.endings) == (["pause", "resume"], [Ending.CLIENT_GONE])
    call.feed(OK[:-4])
    assert orphaned == []
    call.feed(OK[-4:])
    call.feed(b"more")
    assert (orphaned, losses, client.written) == ([True], [], b"")
    call.source_closed("")
    assert losses == [Ending.CONNECTION_LOST]


def test_a_client_that_goes_in_the_middle_of_the_answer():
    call, exchange, _, _, _, orphaned = passed_call(FakeOrigin())
    call.feed(OK[:-1])
    exchange.client_gone()
    call.feed(OK[-1:])
    assert orphaned == [True]


def test_loss_is_told_before_the_answer_and_shown_after_it_has_begun():
    call, exchange, _, listener, losses, _ = passed_call(FakeOrigin())
    call.feed(OK[:20])
    call.source_closed("reset")
    assert (losses, listener.endings) == ([Ending.CONNECTION_LOST], [])
    call, exchange, _, listener, losses, _ = passed_call(FakeOrigin(is_reused=True))
    call.feed(OK[:-1])
    call.source_closed("reset")
    assert (losses, listener.endings) == ([], [Ending.CONNECTION_LOST])
    assert exchange.status == 200


# --- heads ---


def test_a_head_is_changed_in_some_fields_alone():
    changed = HEAD.changed({b"accept-encoding": None, b"x-a": b"2", b"x-b": b"3"})
    assert changed.outgoing(b"w", 2) == (
        b"POST /x HTTP/1.1\r\nHost: w\r\nx-a: 2\r\nx-b: 3\r\nContent-Length: 2\r\n\r\n"
    )
    assert b"Accept-Encoding: gzip\r\nX-A: 1\r\n" in HEAD.outgoing(b"w", 2)
    assert HEAD.to(b"/y").outgoing(b"w", 0).startswith(b"POST /y HTTP/1.1\r\n")
