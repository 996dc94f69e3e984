"""One leg of a request: its place on its worker, and its one completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_core.contract.request import Leg, OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.parties import Ending
from router_core.traffic.endings import LOSSES, OUTCOME_OF_ENDING, outcome_of_http
from router_core.traffic.following import Following
from router_core.traffic.usage import read_usage

if TYPE_CHECKING:
    from router_core.traffic.dispatcher import Dispatcher


class PairLeg:
    """The prefill or the decode part of an attempt.

    Attributes:
        worker: Who serves it.
        is_finished: Whether its completion was told.
    """

    __slots__ = (
        "is_finished",
        "worker",
        "_breakers",
        "_finish_draining",
        "_followers",
        "_lease",
        "_leg",
        "_now",
        "_policy",
        "_request",
        "_started",
        "_ttft_s",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: RoutingRequest,
        lease: Lease,
        leg: Leg,
        *,
        followers: Following | None,
    ) -> None:
        self.worker: Worker = lease.worker
        self.is_finished = False
        self._policy = dispatcher.policy
        self._policy.in_flight += 1
        self._finish_draining = dispatcher.finish_draining
        self._followers = followers
        self._now = dispatcher.now
        self._breakers = dispatcher.breakers
        self._lease = lease
        self._leg = leg
        self._request = request
        self._started = dispatcher.now()
        self._ttft_s: float | None = None
        if self._breakers.half_open:
            self._breakers.placed(self.worker, self)

    def begun(self) -> None:
        """Its answer begins, and it is no error."""
        if self._ttft_s is None and not self.is_finished:
            self._ttft_s = self._now() - self._started
            if self._policy.wants_first_token:
                self._policy.first_token(self.worker, self._request)

    def ended(self, ending: Ending, http_status: int | None, tail: bytes = b"", *, is_blamed: bool = True) -> None:
        """It ended by itself.

        Args:
            ending: How its sending ended.
            http_status: Of its answer, None without one.
            tail: The end of its answer, where usage figures stand.
            is_blamed: Whether its circuit breaker hears of it.
        """
        if ending is Ending.COMPLETE and http_status is not None:
            status = OutcomeStatus.SUCCESS if http_status < 400 else outcome_of_http(http_status)
        else:
            status = OUTCOME_OF_ENDING[ending]
        tail = tail if status is OutcomeStatus.SUCCESS else b""
        self._finish(status, http_status, tail, is_blamed=is_blamed, is_lost=ending in LOSSES)

    def cancel(self) -> None:
        """It was ended for no fault of its own: its client left, or the other leg failed."""
        self._finish(OutcomeStatus.CANCELLED, None, b"")

    def blame(self, http_status: int | None) -> None:
        """It answered, but with nothing that is of use."""
        self._finish(OutcomeStatus.ERROR, http_status, b"")

    def _finish(
        self,
        status: OutcomeStatus,
        http_status: int | None,
        tail: bytes,
        *,
        is_blamed: bool = True,
        is_lost: bool = False,
    ) -> None:
        if self.is_finished:
            return
        self.is_finished = True
        self._lease.release()
        usage = read_usage(tail)
        request = self._request
        outcome = RequestOutcome(
            status,
            http_status,
            self._now() - self._started,
            self._ttft_s,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            request.attempt,
            self._leg,
        )
        self._policy.request_complete(self.worker, request, outcome)
        if self._followers is not None:
            self._followers.attempt_ended(self.worker, request, outcome)
        if status is not OutcomeStatus.SUCCESS or self._breakers.half_open:
            lost_since = self._started if is_lost else None
            blamed_status = status if is_blamed else OutcomeStatus.CANCELLED
            self._breakers.ended(self.worker, self, blamed_status, lost_since=lost_since)
        if self.worker.is_draining:
            self._finish_draining(self.worker)
