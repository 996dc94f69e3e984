"""The last events of a stream that broke off: an error in the form its clients know, and the stream's proper end."""

from __future__ import annotations

import orjson

from router_core.relay.local_answer import error_body

_DONE = b"data: [DONE]\n\n"


def stream_error(path: bytes, status: int, code: str, message: str) -> bytes:
    """Return whole server-sent events.

    Args:
        path: What was asked for; tells the protocol.
        status: The HTTP status the error would have had, had nothing been sent yet.
        code: As in an error's body.
        message: One sentence for people.
    """
    # 1. Anthropic's messages.
    if path == b"/v1/messages":
        anthropic = {"type": "error", "error": {"type": "api_error", "message": message}}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(anthropic)
    # 2. OpenAI's responses: events have a type each, and there is no [DONE].
    if path == b"/v1/responses":
        error = {"type": "error", "code": code, "message": message, "param": None}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(error)
    # 3. OpenAI's completions, and SGLang's own.
    return b"data: %b\n\n" % error_body(status, code, message) + _DONE
