"""One request and its answer: the seam between the relay and those who decide.

The relay hands a whole request over as an `Exchange`. Whoever decides either answers it (`respond`) or sends it to a
worker (`forward`) and is told of the first byte and of the end, exactly once. The worker's bytes are written to the
client as they come; only the head is rebuilt and the end of the body watched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from router_core.relay.framing import ChunkedBody, Framing, FramingError, SizedBody, UntilCloseBody
from router_core.relay.head import END_OF_HEAD, AnswerHead, BadAnswerError, RequestHead
from router_core.relay.local_answer import error_body, local_answer
from router_core.relay.parties import Client, Destination, Ending, Follower, Listener, Source

MAX_ANSWER_HEAD_BYTES = 65536
SHUTTING_DOWN = "The router is shutting down: ask again, another one may answer."
_TAIL_READS = 4
_BODILESS = frozenset({204, 304})
_CONTINUE, _SWITCHING_PROTOCOLS = 100, 101


class Exchange:
    """One request, whole, and the way to answer it.

    Attributes:
        head: The request's head.
        body: The request's body, exactly as sent, without transfer coding.
        model: For whoever decides: the model that a worker must have to serve it, None when any will do.
        status: The worker's HTTP status once its answer has begun, else None.
        error: What went wrong, for the log and the error body; empty when nothing did.
        request_id: Names the request, in logs and to worker and client; empty until somebody has named it.
        request_fields: Whole header lines to send to the worker beside those of `head`.
        answer_fields: Whole header lines to send to the client; a worker's lines of the same names stay behind.
        follower: Who is told when it is over.
        principal: Who asks, if whoever decides knows; None for somebody unknown.
        on_over: Called once when the exchange is over for the client's connection: answered, broken off or left.
    """

    __slots__ = (
        "head",
        "body",
        "model",
        "status",
        "error",
        "request_id",
        "request_fields",
        "answer_fields",
        "follower",
        "principal",
        "on_over",
        "_client",
        "_listener",
        "_destination",
        "_source",
        "_is_reused",
        "_received",
        "_framing",
        "_sink",
        "_body_begun",
        "_is_abandoned",
        "_is_paused",
        "_keep_alive",
        "_worker_keeps_alive",
        "_write",
        "_first_read",
        "_tail",
        "_original",
    )

    def __init__(self, client: Client, head: RequestHead, body: bytes) -> None:
        self.head = head
        self.body = body
        self.model: str | None = None
        self.status: int | None = None
        self.error = ""
        self.request_id = ""
        self.request_fields = b""
        self.answer_fields = b""
        self.follower: Follower | None = None
        self.principal: str | None = None
        self.on_over: Callable[[], None] | None = None
        self._client = client
        self._listener: Listener | None = None
        self._destination: Destination | None = None
        self._source: Source | None = None
        self._is_reused = False
        self._received = b""
        self._framing: Framing | None = None
        self._sink: list[bytes] | None = None
        self._body_begun = False
        self._is_abandoned = False  # the client is gone
        self._is_paused = False  # the client reads too slowly
        self._keep_alive = False
        self._worker_keeps_alive = False
        self._write = client.write
        self._first_read = b""
        self._tail: deque[bytes] | None = None  # made when the body comes in more than one read
        self._original: tuple[RequestHead, bytes] | None = None  # what the client sent, if it was rewritten

    # --- for whoever decides ---

    @property
    def tail(self) -> bytes:
        """The last few reads of the answer's body: where usage figures stand."""
        return self._first_read if self._tail is None else b"".join(self._tail)

    def rewrite(self, head: RequestHead, body: bytes) -> None:
        """Send the next worker another head and body than the client's."""
        if self._original is None:
            self._original = self.head, self.body
        self.head, self.body = head, body

    def restore(self) -> None:
        """Take back what was rewritten: head and body are the client's again."""
        if self._original is not None:
            self.head, self.body = self._original
            self._original = None

    def fix_request_fields(self) -> None:
        """Put the lines of `request_fields` into the head itself, for those who send it by other ways than this."""
        if self.request_fields:
            lines = self.request_fields.split(b"\r\n")[:-1]
            self.head = self.head.changed({name: value for name, _, value in (line.partition(b": ") for line in lines)})
            self.request_fields = b""

    def forward(self, destination: Destination, listener: Listener) -> None:
        """Send the request; may be called again from `on_end` while no answer has begun.

        If the client is gone already, nothing is sent and `listener.on_end` is told at once.
        """
        if self._is_abandoned:
            listener.on_end(Ending.CLIENT_GONE)
            return
        self._listener = listener
        self._destination = destination
        self._received = b""
        self.error = ""
        self._source = destination.send(self)

    def respond(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer the client ourselves, with JSON; nothing happens if it is gone."""
        if self._is_abandoned:
            return
        keep_alive = self.head.keep_alive and self._client.may_stay_open
        self.status = status
        message = local_answer(
            status, body, headers, keep_alive=keep_alive, is_http10=self.head.is_http10, fields=self.answer_fields
        )
        self._client.write(message if self.head.method != b"HEAD" else message[: len(message) - len(body)])
        if self.follower is not None:
            self._tell_follower(None)
        self._client.answered(keep_alive=keep_alive)

    # --- for the worker's side ---

    def sent(self, source: Source, *, is_reused: bool) -> None:
        """The request was written to `source`; a reused connection may turn out to be dead."""
        self._source = source
        self._is_reused = is_reused
        if self._is_paused:
            source.pause_reading()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        framing = self._framing
        if framing is None:
            self._feed_head(data)
            return
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

    def source_closed(self, error: str) -> None:
        """The worker's connection is gone; `error` is empty when it was closed in good order."""
        if not error and isinstance(self._framing, UntilCloseBody):
            self._complete(reusable=False)
            return
        if self._is_reused and self._destination is not None:
            # The worker closed a kept connection while the request was on its way; once, invisibly, try a new one.
            self._is_reused = False
            self._source = self._destination.send(self, fresh=True)
            return
        detail = error or "closed by the worker"
        where = "in the middle of its answer" if self.status is not None else "before it answered"
        self._fail(Ending.CONNECTION_LOST, f"the worker's connection was lost {where}: {detail}")

    def connect_failed(self, error: str) -> None:
        """No connection to the worker could be made."""
        self._fail(Ending.CONNECT_FAILED, error)

    # --- for the client's side ---

    def client_gone(self) -> None:
        """The client hung up: the worker must stop at once."""
        self._is_abandoned = True
        self._fail(Ending.CLIENT_GONE, "the client closed its connection")

    def expire(self) -> None:
        """The time for the whole exchange is over."""
        self._fail(Ending.TIMEOUT, "the worker did not finish its answer in time")

    def shut_down(self) -> None:
        """The router ends before the answer does. Nobody is to blame: for the listener it is as if the client left."""
        has_begun = self.status is not None
        self._fail(Ending.CLIENT_GONE, "the router is shutting down")
        if has_begun:
            self._client.break_off(ends_by_close=True)
        else:
            self.respond(503, error_body(503, "shutting_down", SHUTTING_DOWN))

    def pause(self) -> None:
        """The client reads too slowly."""
        self._is_paused = True
        if self._source is not None:
            self._source.pause_reading()

    def resume(self) -> None:
        """The client caught up."""
        self._is_paused = False
        if self._source is not None:
            self._source.resume_reading()

    # --- inside ---

    def _feed_head(self, data: bytes) -> None:
        self._is_reused = False  # The worker answers: the connection was alive.
        if self._received:
            data = self._received + data
        destination = self._destination
        recalled = None if destination is None else destination.answer_heads.recall(data)
        if recalled is not None:
            answer, size, end = recalled
            self._begin_answer(answer, size, data[end:])
            return
        while True:
            end = data.find(END_OF_HEAD, 0, MAX_ANSWER_HEAD_BYTES)
            if end < 0:
                self._received = data
                if len(data) >= MAX_ANSWER_HEAD_BYTES:
                    self._fail(Ending.BAD_ANSWER, f"the worker's answer head is over {MAX_ANSWER_HEAD_BYTES} bytes")
                return
            end += len(END_OF_HEAD)
            try:
                answer = AnswerHead(data[:end])
                if answer.status == _SWITCHING_PROTOCOLS:
                    raise BadAnswerError("the worker switched protocols unasked")
            except BadAnswerError as error:
                self._fail(Ending.BAD_ANSWER, str(error))
                return
            if answer.status >= 200:
                break
            # An interim answer is not the end. 100 is ours to deal with; the others are the client's.
            if answer.status != _CONTINUE and not self.head.is_http10:
                self._write(answer.outgoing(b""))
            data = data[end:]
        if destination is not None:
            destination.answer_heads.learn(data[:end], answer)
        self._begin_answer(answer, answer.content_length, data[end:])

    def _begin_answer(self, answer: AnswerHead, size: int | None, data: bytes) -> None:
        self.status = answer.status
        self._received = b""
        self._worker_keeps_alive = answer.keep_alive
        is_http10 = self.head.is_http10
        keep_alive = self.head.keep_alive and self._client.may_stay_open
        framing: Framing
        line = self.answer_fields
        if answer.is_marked and line:
            answer = answer.without(line)
        if self.head.method == b"HEAD" or answer.status in _BODILESS:
            framing = SizedBody(0)
            if size is not None and answer.status != 204:
                line += b"Content-Length: %d\r\n" % size
        elif answer.is_chunked:
            framing = ChunkedBody()
            if is_http10:
                self._sink, keep_alive = [], False
            else:
                line += b"Transfer-Encoding: chunked\r\n"
        elif size is not None:
            framing = SizedBody(size)
            line += b"Content-Length: %d\r\n" % size
        else:
            framing = UntilCloseBody()
            keep_alive = self._worker_keeps_alive = False
        if not keep_alive:
            line += b"Connection: close\r\n"
        elif is_http10:
            line += b"Connection: keep-alive\r\n"
        self._keep_alive = keep_alive
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

    def _complete(self, *, reusable: bool) -> None:
        source, self._source = self._source, None
        listener, self._listener = self._listener, None
        self._destination = None  # it may hold this exchange
        if source is not None:
            source.release(reusable=reusable and self._worker_keeps_alive)
        try:
            if listener is not None:
                listener.on_end(Ending.COMPLETE)
        finally:
            if self.follower is not None:
                self._tell_follower(Ending.COMPLETE)
            self._client.answered(keep_alive=self._keep_alive)

    def _fail(self, ending: Ending, error: str) -> None:
        source, self._source = self._source, None
        listener, self._listener = self._listener, None
        self._destination = None
        self.error = error
        if source is not None:
            source.abort()
        begun = self.status is not None
        try:
            if listener is not None:
                listener.on_end(ending)
        finally:
            if ending is Ending.CLIENT_GONE or (begun and listener is not None):
                self._tell_follower(ending)
            if listener is not None and begun and ending is not Ending.CLIENT_GONE:
                ends_by_close = self._sink is not None or isinstance(self._framing, UntilCloseBody)
                self._client.break_off(ends_by_close=ends_by_close)

    def _tell_follower(self, ending: Ending | None) -> None:
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.on_over(self, ending)
