"""One line a request, when it is over: who served it, how it ended, how long it took.

Never a prompt, a key or a header.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.observability.last_outcome import last_outcome
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.relay.refusal import Refusal

log = logging.getLogger("router_core.access")


class AccessLog:
    """Decides which requests get a line.

    The lines are at level info and appear whatever the log's level is.

    Args:
        mode: Those that ended in an error, or all.
        ratio: The share of those without error that get one.
        random: Picks them.
        now: Monotonic seconds.
    """

    def __init__(
        self, mode: Literal["errors", "all"], *, ratio: float = 1.0, random: Random, now: Callable[[], float]
    ) -> None:
        log.setLevel(logging.INFO)
        self._ratio = ratio if mode == "all" else 0.0
        self._random = random
        self._now = now

    def follow(self, exchange: Exchange) -> AccessLine:  # noqa: ARG002  # as whoever follows is called
        """Follow a request; whether it gets a line is known when it is over."""
        return AccessLine(self, self._now())

    def write(self, line: AccessLine, exchange: Exchange, ending: Ending | None) -> None:
        """Write the line, if it is to be."""
        is_error = ending not in _WHOLE or exchange.status is None or exchange.status >= 400
        if not is_error and self._random.random() >= self._ratio:
            return
        _write(line.fields(exchange, ending, self._now()))

    def write_refusal(self, refusal: Refusal) -> None:
        """Write the line of a request that was refused before it was whole."""
        peer, status, code, reason = refusal
        _write({"peer": peer, "status": status, "code": code, "ending": "refused", "error": reason})


class AccessLine:
    """What is known of one request."""

    __slots__ = ("_arrived", "_attempts", "_log", "_outcome", "_policy", "_reason", "_workers")

    def __init__(self, log_: AccessLog, arrived: float) -> None:
        self._log = log_
        self._arrived = arrived
        self._attempts = 0
        self._workers: list[str] = []
        self._policy = ""
        self._reason: str | None = None
        self._outcome: RequestOutcome | None = None

    def placed(self, exchange: Exchange, worker: Worker, request: RoutingRequest, policy: str) -> None:  # noqa: ARG002
        """Take note of the worker: of the last attempt's one, or two."""
        if request.attempt != self._attempts:
            self._attempts, self._workers = request.attempt, []
        self._workers.append(worker.url)
        self._policy, self._reason = policy, request.reason

    def attempt_ended(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:  # noqa: ARG002
        """Take note of the outcome; of a pair's, the leg's that failed, not the other's that was cancelled for it."""
        self._outcome = last_outcome(self._outcome, outcome)

    def on_over(self, exchange: Exchange, ending: Ending | None) -> None:
        """Write the line."""
        self._log.write(self, exchange, ending)

    def fields(self, exchange: Exchange, ending: Ending | None, now: float) -> Mapping[str, object]:
        """Return what the line says, what is not known left out."""
        head, outcome = exchange.head, self._outcome
        fields: dict[str, object | None] = {
            "request_id": exchange.request_id,
            "method": head.method.decode("ascii"),
            "path": head.path.decode("ascii", "backslashreplace"),
            "status": exchange.status,
            "code": exchange.code or None,
            "ending": "answered" if ending is None else ending.name.lower(),
            "duration_ms": _milliseconds(now - self._arrived),
            "worker": ",".join(self._workers) or None,
            "policy": self._policy or None,
            "reason": self._reason,
            "attempts": self._attempts,
        }
        if outcome is not None:
            fields["outcome"] = outcome.status.value
            fields["ttft_ms"] = None if outcome.ttft_s is None else _milliseconds(outcome.ttft_s)
            fields["prompt_tokens"] = outcome.prompt_tokens
            fields["cached_tokens"] = outcome.cached_tokens
            fields["completion_tokens"] = outcome.completion_tokens
        return {name: value for name, value in fields.items() if value is not None}


_WHOLE = frozenset({None, Ending.COMPLETE})


def _write(fields: Mapping[str, object]) -> None:
    log.info("%s", " ".join(f"{name}={_shown(value)}" for name, value in fields.items()), extra={"fields": fields})


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') else repr(text)
