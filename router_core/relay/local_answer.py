"""Answers of the router's own: a whole HTTP message with a JSON body."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from typing import NamedTuple

import orjson

from router_core.relay.head_fields import REASONS


def error_body(status: int, code: str, message: str) -> bytes:
    """Return an error as OpenAI's clients and the gateways' users know it.

    Args:
        status: The HTTP status it goes with; gives `type`.
        code: A fixed word that programs may compare, such as `no_available_workers`.
        message: One sentence for people.
    """
    kind = REASONS.get(status, b"Error").decode()
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


class ErrorAnswer(NamedTuple):
    """An error that is answered in more than one place."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


def with_error_code(headers: Iterable[tuple[str, str]], name: str | None, code: str) -> Iterable[tuple[str, str]]:
    """Return an error's headers with the one that tells its code, if there is one."""
    return headers if name is None else (*headers, (name, code))


def local_answer(
    status: int,
    body: bytes,
    headers: Iterable[tuple[str, str]] = (),
    *,
    keep_alive: bool,
    is_http10: bool = False,
    fields: bytes = b"",
) -> bytes:
    """Return a whole answer; `fields` are further header lines, whole ones."""
    lines = fields + "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
    if not keep_alive:
        lines += b"Connection: close\r\n"
    elif is_http10:
        lines += b"Connection: keep-alive\r\n"
    return b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b" % (
        status,
        REASONS.get(status, b""),
        formatdate(usegmt=True).encode(),
        len(body),
        lines,
        body,
    )
