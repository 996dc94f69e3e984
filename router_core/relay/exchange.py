"""One request and its answer: the seam between the relay and those who decide.

The relay hands a whole request over as an `Exchange`. Whoever decides either answers it (`respond`) or sends it to a
worker (`forward`) and is told of the first byte and of the end, exactly once. The worker's bytes are written to the
client as they come; only the head is rebuilt and the end of the body watched for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from router_core.relay.closing_events import closing_events
from router_core.relay.declined_answer import DeclinedAnswer
from router_core.relay.framing import UntilCloseBody
from router_core.relay.local_answer import error_body, local_answer, with_error_code
from router_core.relay.parties import Client, Destination, Ending, Follower, Listener, Source
from router_core.relay.passed_answer import PassedAnswer
from router_core.relay.request_head import RequestHead

SHUTTING_DOWN = "The router is shutting down: ask again, another one may answer."


class Exchange(PassedAnswer):
    """One request, whole, and the way to answer it.

    Attributes:
        head: The request's head.
        body: The request's body, exactly as sent, without transfer coding.
        model: For whoever decides: the model that a worker must have to serve it, None when any will do.
        status: The worker's HTTP status once its answer has begun, else None.
        error: What went wrong, for the log and the error body; empty when nothing did.
        code: The fixed word of the error that the router itself answered with, or gave the client up for; else empty.
        request_id: Names the request, in logs and to worker and client; empty until somebody has named it.
        request_fields: Whole header lines to send to the worker beside those of `head`.
        answer_fields: Whole header lines to send to the client; a worker's lines of the same names stay behind.
        follower: Who is told when it is over.
        principal: Who asks, if whoever decides knows; None for somebody unknown.
        on_over: Called once when the exchange is over for the client's connection: answered, broken off or left.
        declined: The latest answer that was kept from the client, or None.
    """

    __slots__ = (
        "body",
        "model",
        "error",
        "code",
        "request_id",
        "request_fields",
        "follower",
        "principal",
        "on_over",
        "_still_since",
        "_source",
        "_is_abandoned",
        "_is_paused",
        "_is_resent",
        "_original",
    )

    def __init__(self, client: Client, head: RequestHead, body: bytes) -> None:
        super().__init__(client, head)
        self.body = body
        self.model: str | None = None
        self.error = self.code = ""
        self.request_id = ""
        self.request_fields = b""
        self.follower: Follower | None = None
        self.principal: str | None = None
        self.on_over: Callable[[], None] | None = None
        self._still_since = 0.0
        self._source: Source | None = None
        self._is_abandoned = False  # the client is gone
        self._is_paused = False  # the client reads too slowly
        self._is_resent = False  # a kept connection took the request and was lost
        self._original: tuple[RequestHead, bytes] | None = None  # what the client sent, if it was rewritten

    # --- for whoever decides ---

    @property
    def listener(self) -> Listener | None:
        """Who follows it; None while nobody was sent the request, and when it is over."""
        return self._listener

    @property
    def deadline(self) -> float:
        """When the time for the whole exchange is over, in loop time."""
        return self._client.deadline

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
        if self.declined is not None:
            self.declined.is_over = True
        self._listener = listener
        self._destination = destination
        self._received = b""
        self._has_moved = True
        self._is_resent = False
        self.error = ""
        self._source = destination.send(self)

    def respond(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer the client ourselves, with JSON; nothing happens if it is gone."""
        if self._is_abandoned:
            return
        self._listener = self._destination = self._source = None
        keep_alive = self.head.keep_alive and self._client.may_stay_open
        self.status = status
        message = local_answer(
            status, body, headers, keep_alive=keep_alive, is_http10=self.head.is_http10, fields=self.answer_fields
        )
        self._client.write(message if self.head.method != b"HEAD" else message[: len(message) - len(body)])
        if self.follower is not None:
            self._tell_follower(None)
        self._client.answered(keep_alive=keep_alive)

    def refuse(self, status: int, code: str, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer the client ourselves, with an error; see `error_body`."""
        self.code = code
        headers = with_error_code(headers, self._client.error_code_header, code)
        self.respond(status, error_body(status, code, message), headers)

    def respond_declined(self) -> bool:
        """Answer with the answer that was declined last, as the worker gave it; False if there is none to be had."""
        declined = self.declined
        if declined is None or declined.content is None:
            return False
        if not self._is_abandoned:
            self._listener = self._destination = self._source = None
            self.status = declined.head.status
            keep_alive = self.head.keep_alive and self._client.may_stay_open
            head, line = declined.head.without(self.answer_fields), b"Content-Length: %d\r\n" % len(declined.content)
            line += self.answer_fields + self._connection_line(keep_alive)
            self._client.write(head.outgoing(line) + declined.content)
            if self.follower is not None:
                self._tell_follower(Ending.COMPLETE)
            self._client.answered(keep_alive=keep_alive)
        return True

    def give_up(self, error: str) -> None:
        """The worker is known to be dead, whatever its connection says; the listener hears WORKER_DOWN."""
        self._fail(Ending.WORKER_DOWN, error)

    # --- for the worker's side ---

    def sent(self, source: Source, *, is_reused: bool) -> None:
        """The request was written to `source`; a reused connection may turn out to be dead."""
        self._source = source
        self._is_reused = is_reused
        if self._is_paused:
            source.pause_reading()

    def source_closed(self, error: str) -> None:
        """The worker's connection is gone; `error` is empty when it was closed in good order."""
        if not error and isinstance(self._framing, UntilCloseBody):
            self._complete(reusable=False)
            return
        declined = self.declined
        if declined is not None and not declined.is_over:
            declined.close(error)
            self._end_declined(declined)
            return
        if self._is_reused and self._destination is not None:
            # The worker closed a kept connection while the request was on its way; once, invisibly, try a new one.
            self._is_reused = False
            self._is_resent = True
            self._source = self._destination.send(self, fresh=True)
            return
        detail = error or "closed by the worker"
        where = "in the middle of its answer" if self.status is not None else "before it answered"
        self._fail(Ending.CONNECTION_LOST, f"the worker's connection was lost {where}: {detail}")

    def connect_failed(self, error: str, ending: Ending = Ending.CONNECT_FAILED) -> None:
        """No connection to the worker could be made."""
        self._fail(Ending.GONE if self._is_resent and ending is Ending.CONNECT_FAILED else ending, error)

    # --- for the client's side ---

    def client_gone(self, why: str = "the client closed its connection") -> None:
        """The client hung up, or is taken for gone: the worker must stop at once."""
        self._is_abandoned = True
        self._fail(Ending.CLIENT_GONE, why)

    def expire(self) -> None:
        """The time for the whole exchange is over."""
        self._fail(Ending.TIMEOUT, "the worker did not finish its answer in time")

    def shut_down(self) -> None:
        """The router ends before the answer does. Nobody is to blame: for the listener it is as if the client left."""
        has_begun, listener = self.status is not None, self._listener
        self._fail(Ending.SHUTTING_DOWN, "the router is shutting down")
        if has_begun and listener is not None:
            self._end_early(listener, Ending.CLIENT_GONE)
        elif has_begun:
            self._client.break_off(ends_by_close=True)
        else:
            self.refuse(503, "shutting_down", SHUTTING_DOWN)

    def look(self, now: float) -> None:
        """Called now and then, for all exchanges: give up a worker that sends nothing for too long."""
        destination = self._destination
        if destination is None:
            return
        declined = self.declined
        if declined is not None and not declined.is_over:
            if declined.is_late():
                self._end_declined(declined)
            return
        silence = destination.silence
        if silence is None:
            return
        if self._has_moved or self._is_paused:
            self._has_moved = False
            self._still_since = now
            return
        limit_s = silence.first_byte_s if self.status is None else silence.stall_s
        if limit_s is not None and now - self._still_since >= limit_s:
            if self.status is None:
                error = f"the worker did not begin its answer within {limit_s:g} s"
            else:
                error = f"the worker sent nothing for {limit_s:g} s in the middle of its answer"
            self._fail(Ending.STALLED, error)

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
        is_shutdown = ending is Ending.SHUTTING_DOWN
        try:
            if listener is not None:
                listener.on_end(Ending.CLIENT_GONE if is_shutdown else ending)
        finally:
            if ending is Ending.CLIENT_GONE or (begun and (listener is not None or is_shutdown)):
                self._tell_follower(ending)
            if listener is not None and begun and ending is not Ending.CLIENT_GONE and not is_shutdown:
                self._end_early(listener, ending)

    def _tell_follower(self, ending: Ending | None) -> None:
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.on_over(self, ending)

    def _end_early(self, listener: Listener, ending: Ending) -> None:
        """End an answer that has begun and cannot be finished: a stream of events says so itself, others break off."""
        closing = None
        # After a framing error it is not known how much of the worker's bytes the client has.
        if ending is not Ending.BAD_ANSWER and self._answer is not None and self._answer.is_event_stream:
            words = listener.last_words(ending)
            closing = closing_events(words, self._framing, self.tail, is_decoded=self._sink is not None)
        if closing is not None:
            self._write(closing)
            self._client.answered(keep_alive=self._keep_alive and self._client.may_stay_open)
            return
        ends_by_close = self._sink is not None or isinstance(self._framing, UntilCloseBody)
        self._client.break_off(ends_by_close=ends_by_close)

    # --- an answer that was declined ---

    def _end_declined(self, declined: DeclinedAnswer) -> None:
        declined.is_over = True
        source, self._source = self._source, None
        listener, self._listener = self._listener, None
        self._destination = None
        if source is not None:
            if declined.keeps_connection:
                source.release(reusable=True)
            else:
                source.abort()
        if listener is not None:
            listener.on_end(Ending.DECLINED)
