"""Response headers that say who served a request and why: `x-router-worker`, `x-router-policy`, `x-router-reason`."""

from __future__ import annotations

import re
from typing import Literal

from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.traffic.following import Follow

_DEBUG = b"x-router-debug"
_NO = frozenset({b"0", b"false", b"no", b"off", b""})
_UNFIT = re.compile(r"[^\x20-\x7e]")


class DecisionHeaders:
    """Adds the headers to one request's answer; after another attempt they tell of that one alone.

    Of a pair, `x-router-worker` names the prefill worker first, then the decode worker.
    """

    __slots__ = ("_attempt", "_fields", "_workers")

    def __init__(self, exchange: Exchange) -> None:
        self._fields = exchange.answer_fields
        self._attempt = 0
        self._workers: list[str] = []

    def placed(self, exchange: Exchange, worker: Worker, request: RoutingRequest, policy: str) -> None:
        """Say so in the answer's head."""
        if request.attempt != self._attempt:
            self._attempt, self._workers = request.attempt, []
        self._workers.append(worker.url)
        lines = (
            ("x-router-worker", ", ".join(self._workers)),
            ("x-router-policy", policy),
            ("x-router-reason", request.reason or "unexplained"),
        )
        text = "".join(f"{name}: {_UNFIT.sub('?', value)[:1000]}\r\n" for name, value in lines)
        exchange.answer_fields = self._fields + text.encode("ascii")

    def attempt_ended(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """The headers have left, or the next attempt replaces them."""

    def on_over(self, exchange: Exchange, ending: Ending | None) -> None:
        """Nothing is kept."""


def decision_headers(mode: Literal["always", "on_request"]) -> Follow:
    """Return what gives requests their headers.

    Args:
        mode: Whether to give them to all, or to those that ask by `x-router-debug: 1`.
    """
    if mode == "always":
        return DecisionHeaders

    def follow(exchange: Exchange) -> DecisionHeaders | None:
        asked = exchange.head.fields.get(_DEBUG)
        return None if asked is None or asked.lower() in _NO else DecisionHeaders(exchange)

    return follow
