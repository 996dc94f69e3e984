"""A worker's answer on its way to the client: its head rebuilt, its bytes passed on, its end watched for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from router_core.relay.answer_heads import AnswerHead, BadAnswerError, body_framing, read_heads
from router_core.relay.declined_answer import DeclinedAnswer
from router_core.relay.framing import Framing, FramingError, SizedBody, UntilCloseBody
from router_core.relay.parties import Client, Destination, Ending, Listener
from router_core.relay.request_head import RequestHead

_TAIL_READS = 4
_CONTINUE = 100


class PassedAnswer(ABC):
    """The half of an exchange that the worker feeds. What its end leads to is for the other half, `Exchange`.

    Attributes:
        head: The request's head.
        status: The worker's HTTP status once its answer has begun, else None.
        answer_fields: Whole header lines to send to the client; a worker's lines of the same names stay behind.
        declined: The latest answer that was kept from the client, or None.
    """

    __slots__ = (
        "head",
        "status",
        "answer_fields",
        "declined",
        "_answer",
        "_body_begun",
        "_client",
        "_destination",
        "_first_read",
        "_framing",
        "_has_moved",
        "_interims",
        "_is_reused",
        "_keep_alive",
        "_listener",
        "_received",
        "_sink",
        "_tail",
        "_worker_keeps_alive",
        "_write",
    )

    def __init__(self, client: Client, head: RequestHead) -> None:
        self.head = head
        self.status: int | None = None
        self.answer_fields = b""
        self.declined: DeclinedAnswer | None = None
        self._answer: AnswerHead | None = None  # whose body goes to the client
        self._body_begun = False
        self._client = client
        self._destination: Destination | None = None
        self._first_read = b""
        self._framing: Framing | None = None
        self._interims = 0  # interim answers so far, to all attempts
        self._is_reused = False
        self._keep_alive = False
        self._listener: Listener | None = None
        self._received = b""
        self._sink: list[bytes] | None = None
        self._tail: deque[bytes] | None = None  # made when the body comes in more than one read
        self._worker_keeps_alive = False
        self._write = client.write

    @property
    def tail(self) -> bytes:
        """The last few reads of the answer's body: where usage figures stand."""
        return self._first_read if self._tail is None else b"".join(self._tail)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        framing = self._framing
        if framing is None:
            self._feed_head(data)
            return
        self._has_moved = True
        try:
            end = framing.feed(data, self._sink)
        except FramingError as error:
            self._fail(Ending.BAD_ANSWER, f"the worker's answer is broken: {error}")
            return
        whole = end < 0 or end == len(data)
        body = data if whole else data[:end]
        if not self._body_begun:
            self._begin_body(body)
        tail = self._tail
        if tail is None:
            tail = self._tail = deque((self._first_read,), _TAIL_READS)
        tail.append(body)
        if self._sink is None:
            self._write(body)
        else:
            self._write_decoded(b"")
        if end >= 0:
            self._complete(reusable=whole)

    # --- inside ---

    def _feed_head(self, data: bytes) -> None:
        declined = self.declined
        if declined is not None and not declined.is_over:
            self._swallow(declined, data)
            return
        self._is_reused = False  # The worker answers: the connection was alive.
        if self._received:
            data = self._received + data
        destination = self._destination
        recalled = None if destination is None else destination.answer_heads.recall(data)
        if recalled is not None:
            answer, size, end = recalled
            self._begin_answer(answer, size, data[end:])
            return
        try:
            heads = read_heads(data, self._interims)
        except BadAnswerError as error:
            self._fail(Ending.BAD_ANSWER, str(error))
            return
        # An interim answer is not the end. 100 is ours to deal with; the others are the client's.
        for interim in heads.interim:
            self._interims += 1
            if interim.status != _CONTINUE and not self.head.is_http10:
                self._write(interim.outgoing(b""))
        final = heads.final
        if final is None:
            self._received = heads.rest
            return
        if destination is not None:
            destination.answer_heads.learn(heads.wire, final)
        self._begin_answer(final, final.content_length, heads.rest)

    def _begin_answer(self, answer: AnswerHead, size: int | None, data: bytes) -> None:
        self._received = b""
        is_head = self.head.method == b"HEAD"
        if answer.status >= 400 and self._listener is not None and self._listener.declines(answer):
            self.declined = DeclinedAnswer(answer, size, is_head=is_head)
            self._swallow(self.declined, data)
            return
        self.status = answer.status
        self._has_moved = True
        self._answer = answer
        self._worker_keeps_alive = answer.keep_alive
        keep_alive = self.head.keep_alive and self._client.may_stay_open
        framing = body_framing(answer, size, is_head=is_head)
        line = self.answer_fields
        if answer.is_marked and line:
            answer = answer.without(line)
        if isinstance(framing, SizedBody):
            if size is not None and answer.status != 204:
                line += b"Content-Length: %d\r\n" % size
        elif isinstance(framing, UntilCloseBody):
            keep_alive = self._worker_keeps_alive = False
        elif self.head.is_http10:
            self._sink, keep_alive = [], False
        else:
            line += b"Transfer-Encoding: chunked\r\n"
        self._keep_alive = keep_alive
        if not keep_alive or self.head.is_http10:
            line += self._connection_line(keep_alive)
        self._framing = framing
        head = answer.outgoing(line)
        if not data and not isinstance(framing, SizedBody):
            self._write(head)
            return
        # The head and what came with it leave in one write.
        try:
            end = framing.feed(data, self._sink)
        except FramingError as error:
            self._write(head)
            self._fail(Ending.BAD_ANSWER, f"the worker's answer is broken: {error}")
            return
        whole = end < 0 or end == len(data)
        body = data if whole else data[:end]
        if body:
            self._begin_body(body)
            self._first_read = body
        if self._sink is None:
            self._write(head + body)
        else:
            self._write_decoded(head)
        if end >= 0:
            self._complete(reusable=whole)

    def _connection_line(self, keep_alive: bool) -> bytes:  # one line of a head
        if not keep_alive:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self.head.is_http10 else b""

    def _begin_body(self, data: bytes) -> None:
        self._body_begun = True
        if self._listener is not None:
            self._listener.on_first_byte(data)

    def _write_decoded(self, head: bytes) -> None:
        """Write what the chunks hold: an HTTP/1.0 client knows no chunks."""
        sink = self._sink
        if sink or head:
            self._write(head + b"".join(sink or ()))
        if sink:
            sink.clear()

    def _swallow(self, declined: DeclinedAnswer, data: bytes) -> None:
        declined.feed(data)
        if declined.is_over:
            self._end_declined(declined)

    # --- what it leads to ---

    @abstractmethod
    def _complete(self, *, reusable: bool) -> None:
        """The answer is whole; `reusable` tells whether the worker's connection stands at its end."""

    @abstractmethod
    def _end_declined(self, declined: DeclinedAnswer) -> None:
        """An answer that was declined is over."""

    @abstractmethod
    def _fail(self, ending: Ending, error: str) -> None:
        """There is no answer, or no more of it."""
