"""Why an attempt failed, as far as it matters to the next one: read off its ending or off the worker's answer."""

from __future__ import annotations

from enum import Enum, auto

from router_core.relay.answer_heads import AnswerHead
from router_core.relay.parties import Ending
from router_core.traffic.endings import BACKPRESSURE

_MAX_DIGITS = 6


class Failure(Enum):
    """Why an attempt failed, as far as it matters to the next."""

    NOT_CONNECTED = auto()
    LOST = auto()
    SILENT = auto()
    GONE = auto()
    FULL = auto()
    STATUS = auto()


_FAILURES = {
    Ending.CONNECT_FAILED: Failure.NOT_CONNECTED,
    Ending.CONNECTION_LOST: Failure.LOST,
    Ending.GONE: Failure.GONE,
    Ending.STALLED: Failure.SILENT,
    Ending.WORKER_DOWN: Failure.SILENT,
}
"""The endings without an answer after which another attempt may be made. A broken answer would come again."""


def failure_of_ending(ending: Ending) -> Failure | None:
    """Return what the end of an attempt without an answer was; None if there is no use in another attempt."""
    return _FAILURES.get(ending)


def failure_of_status(status: int) -> Failure:
    """Return what an answer was that is an error."""
    return Failure.FULL if status in BACKPRESSURE else Failure.STATUS


def retry_after_s(answer: AnswerHead) -> float:
    """Return how long a worker wishes to be left alone, 0 if it does not say so in seconds."""
    value = answer.retry_after
    return float(value) if value is not None and value.isdigit() and len(value) <= _MAX_DIGITS else 0.0
