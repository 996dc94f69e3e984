"""The heads at the beginning of a worker's answer, interim ones and the one that counts, and the body it announces."""

from __future__ import annotations

from typing import NamedTuple

from router_core.relay.framing import ChunkedBody, Framing, SizedBody, UntilCloseBody
from router_core.relay.head import END_OF_HEAD, AnswerHead, BadAnswerError

MAX_ANSWER_HEAD_BYTES = 65536
_SWITCHING_PROTOCOLS = 101
_BODILESS = frozenset({204, 304})


class AnswerHeads(NamedTuple):
    """What stood at the beginning.

    Attributes:
        interim: Heads of interim answers (1xx), in order.
        final: The head of the answer itself; None while it is not whole.
        wire: The final head's bytes.
        rest: What lies behind the last whole head.
    """

    interim: list[AnswerHead]
    final: AnswerHead | None
    wire: bytes
    rest: bytes


def read_heads(data: bytes) -> AnswerHeads:
    """Read as many heads as there are, up to the final one.

    Raises:
        BadAnswerError: If one is malformed, too long, or of an answer that cannot be relayed.
    """
    interim: list[AnswerHead] = []
    while True:
        end = data.find(END_OF_HEAD, 0, MAX_ANSWER_HEAD_BYTES)
        if end < 0:
            if len(data) >= MAX_ANSWER_HEAD_BYTES:
                raise BadAnswerError(f"the worker's answer head is over {MAX_ANSWER_HEAD_BYTES} bytes")
            return AnswerHeads(interim, None, b"", data)
        end += len(END_OF_HEAD)
        wire = data[:end]
        answer = AnswerHead(wire)
        if answer.status == _SWITCHING_PROTOCOLS:
            raise BadAnswerError("the worker switched protocols unasked")
        data = data[end:]
        if answer.status >= 200:
            return AnswerHeads(interim, answer, wire, data)
        interim.append(answer)


def body_framing(answer: AnswerHead, size: int | None, *, is_head: bool) -> Framing:
    """Return where the body of an answer ends.

    Args:
        answer: Its head.
        size: Its Content-Length, which differs from `answer.content_length` when the head was recalled.
        is_head: Whether HEAD was asked: then no body follows, whatever the head says.
    """
    if is_head or answer.status in _BODILESS:
        return SizedBody(0)
    if answer.is_chunked:
        return ChunkedBody()
    return UntilCloseBody() if size is None else SizedBody(size)
