"""What heads of requests and of answers have in common (RFC 9110 and 9112)."""

from __future__ import annotations

import re
from http import HTTPStatus

END_OF_HEAD = b"\r\n\r\n"

BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
"""CR or LF alone; a CR at the end may get its LF yet."""

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

_KEEP_OR_CLOSE = frozenset({b"keep-alive", b"close", b""})


def name_of(line: bytes) -> bytes:
    """Return the lower-case name of the field in a header line."""
    return line.partition(b":")[0].lower()


def nominated(connection: bytes) -> frozenset[bytes]:
    """Return the fields that a Connection header names as hop-by-hop."""
    return frozenset(option.strip() for option in connection.lower().split(b",")) - _KEEP_OR_CLOSE
