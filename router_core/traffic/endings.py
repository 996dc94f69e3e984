"""What the end of an attempt means: to the worker's record, and to a client that has no answer or half of one."""

from __future__ import annotations

from router_core.contract.request import OutcomeStatus
from router_core.relay.exchange import SHUTTING_DOWN
from router_core.relay.local_answer import ErrorAnswer
from router_core.relay.parties import Ending
from router_core.relay.shortage import EXHAUSTED
from router_core.traffic.stream_error import stream_error

BACKPRESSURE = frozenset({429, 503})
"""Statuses by which a worker says that it is full."""
OUTCOME_OF_ENDING = {
    Ending.CONNECT_FAILED: OutcomeStatus.ERROR,
    Ending.ROUTER_EXHAUSTED: OutcomeStatus.CANCELLED,
    Ending.CONNECTION_LOST: OutcomeStatus.ERROR,
    Ending.GONE: OutcomeStatus.ERROR,
    Ending.BAD_ANSWER: OutcomeStatus.ERROR,
    Ending.WORKER_DOWN: OutcomeStatus.ERROR,
    Ending.DECLINED: OutcomeStatus.ERROR,
    Ending.TIMEOUT: OutcomeStatus.TIMEOUT,
    Ending.STALLED: OutcomeStatus.TIMEOUT,
    Ending.CLIENT_GONE: OutcomeStatus.CANCELLED,
}
LOSSES = frozenset({Ending.CONNECTION_LOST, Ending.GONE})
"""The endings that come together for all requests of a worker that dies."""
# Details, such as a worker's address, are for the log.
ANSWER_TO_ENDING = {
    Ending.CONNECT_FAILED: ErrorAnswer(502, "upstream_connection_failed", "No worker could be reached."),
    Ending.ROUTER_EXHAUSTED: EXHAUSTED,
    Ending.CONNECTION_LOST: ErrorAnswer(
        502, "upstream_connection_lost", "The worker's connection was lost before it answered."
    ),
    Ending.GONE: ErrorAnswer(502, "upstream_connection_lost", "The worker's connection was lost before it answered."),
    Ending.BAD_ANSWER: ErrorAnswer(502, "upstream_bad_answer", "The worker's answer was not valid HTTP."),
    Ending.WORKER_DOWN: ErrorAnswer(502, "upstream_connection_lost", "The worker died before it answered."),
    Ending.DECLINED: ErrorAnswer(
        502, "upstream_error", "The worker answered with an error that was too long to be passed on."
    ),
    Ending.TIMEOUT: ErrorAnswer(504, "upstream_timeout", "The worker did not answer in time."),
    Ending.STALLED: ErrorAnswer(504, "upstream_timeout", "The worker did not answer in time."),
    # A client that is gone reads nothing; one that is not is told so because the router is.
    Ending.CLIENT_GONE: ErrorAnswer(503, "shutting_down", SHUTTING_DOWN),
}
_MESSAGE_IN_MID_STREAM = {
    Ending.CONNECTION_LOST: "The worker's connection was lost in the middle of its answer.",
    Ending.TIMEOUT: "The worker did not finish its answer in time.",
    Ending.STALLED: "The worker stopped in the middle of its answer.",
    Ending.CLIENT_GONE: "The router shut down in the middle of the answer.",
}


def outcome_of_http(http_status: int) -> OutcomeStatus:
    """Return what an answer that is an error says of its worker."""
    if http_status in BACKPRESSURE:
        return OutcomeStatus.BACKPRESSURE
    return OutcomeStatus.CLIENT_ERROR if http_status < 500 else OutcomeStatus.ERROR


def last_words(path: bytes, ending: Ending) -> bytes:
    """Return the events that end a stream which broke off; empty if it had better be broken off for the client, too."""
    message = _MESSAGE_IN_MID_STREAM.get(ending)
    if message is None:
        return b""
    answer = ANSWER_TO_ENDING[ending]
    return stream_error(path, answer.status, answer.code, message)
