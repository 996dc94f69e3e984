"""What is said of a request that is refused before anybody was asked."""

from __future__ import annotations

from typing import NamedTuple

CODES = {
    400: "bad_request",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    431: "request_header_fields_too_large",
    501: "not_implemented",
    503: "too_many_connections",
    505: "http_version_not_supported",
}
"""The word in the error body, by status, where none is given."""


class Refusal(NamedTuple):
    """A request that was refused; nothing in it is the client's own words.

    Attributes:
        peer: The client's address, such as `10.0.0.1:50000`.
        status: The HTTP status that was answered.
        code: The word for it in the error body.
        reason: The sentence in the error body.
    """

    peer: str
    status: int
    code: str
    reason: str
