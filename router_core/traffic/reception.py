"""What happens to a request before anybody decides about it: it gets its name, and those who want to follow it do."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Sequence

from router_core.relay.exchange import Exchange
from router_core.traffic.following import Follow, Following, RequestFollower

_REQUEST_ID = b"x-request-id"
_FIT = re.compile(rb"[\x21-\x7e]{1,256}\Z")


class Reception:
    """Names requests and hands them on.

    A request's name is what the client gave in the first of some headers, else one of the router's own. It goes to the
    worker and back to the client as `x-request-id`. A name that is no name (spaces, control or non-ASCII characters,
    over 256 of them) is passed over: it would end up in logs, in headers and at the worker.

    Args:
        handle: As the attribute `hand_on`.
        id_headers: Lower-case names of the headers to look into, in this order.
        follow: All who may want to follow a request.
        is_followed: Tells by the path which requests they are asked about.

    Attributes:
        hand_on: Takes each request next.
    """

    def __init__(
        self,
        handle: Callable[[Exchange], None],
        *,
        id_headers: Sequence[str],
        follow: Sequence[Follow] = (),
        is_followed: Callable[[bytes], bool] = lambda path: True,  # noqa: ARG005  # named as callers pass it
    ) -> None:
        self.hand_on = handle
        self._id_headers = tuple(name.encode() for name in id_headers)
        self._looks_at = frozenset((*self._id_headers, _REQUEST_ID))
        self._follow = tuple(follow)
        self._is_followed = is_followed
        self._prefix = f"req-{secrets.token_hex(6)}-"
        self._line = b"x-request-id: %b%%x\r\n" % self._prefix.encode()
        self._numbers = itertools.count(1)

    def handle(self, exchange: Exchange) -> None:
        """Take one request."""
        number = next(self._numbers)
        exchange.request_id = f"{self._prefix}{number:x}"
        exchange.request_fields = exchange.answer_fields = self._line % number
        if not self._looks_at.isdisjoint(exchange.head.fields):
            self._take_given_id(exchange)
        if self._follow and self._is_followed(exchange.head.path):
            self._begin_following(exchange)
        self.hand_on(exchange)

    def _take_given_id(self, exchange: Exchange) -> None:
        fields = exchange.head.fields
        own = fields.get(_REQUEST_ID)
        given = next((fields[name] for name in self._id_headers if _FIT.match(fields.get(name, b""))), None)
        if given is not None:
            exchange.request_id = given.decode("ascii")
            exchange.request_fields = exchange.answer_fields = b"x-request-id: %b\r\n" % given
        if own is None:
            return
        if own == given:
            if exchange.head.sends(_REQUEST_ID):
                exchange.request_fields = b""  # it is there already
        else:
            exchange.fix_request_fields()

    def _begin_following(self, exchange: Exchange) -> None:
        followers: list[RequestFollower] = []
        for follow in self._follow:
            follower = follow(exchange)
            if follower is not None:
                followers.append(follower)
        if followers:
            exchange.follower = Following(followers)
