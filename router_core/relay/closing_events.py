"""How a stream of server-sent events that breaks off can still be ended in good order."""

from __future__ import annotations

from router_core.relay.framing import ChunkedBody, Framing, UntilCloseBody

_ENDS_OF_EVENT = (b"\n\n", b"\n\n\r\n")  # the latter with the end of a chunk behind it


def closing_events(words: bytes, framing: Framing | None, tail: bytes, *, is_decoded: bool) -> bytes | None:
    """Return the bytes that end a stream with some last events.

    Args:
        words: The events; empty if there is nothing to say.
        framing: The body's, in the state the client has seen.
        tail: The last that the client got, framing included.
        is_decoded: Whether the client gets the content alone, ended by the close of its connection.

    Returns:
        None if the stream can only be broken off.
    """
    if not words:
        return None
    if not tail.endswith(_ENDS_OF_EVENT):
        words = b"\n\n" + words  # An event was cut off: end it, or the client would read ours as a part of it.
    if is_decoded or isinstance(framing, UntilCloseBody):
        return words
    return framing.closing(words) if isinstance(framing, ChunkedBody) else None
