"""One request of a trace on its way through a router and one engine or two."""

from __future__ import annotations

from collections.abc import Sequence

from router_core.contract.request import RoutingRequest
from router_core.simulate.record import RequestRecord
from router_core.simulate.router import Placement, Router
from router_core.simulate.trace import TraceRequest


class Job:
    """What a replay knows of a request that has arrived and not ended.

    Attributes:
        session: Places in the trace of all turns of its session, in order.
        position: Which of them it is.
        request: What the trace says of it.
        record: What becomes of it.
        router: Who places it.
        routed: It, as the router's policy sees it.
        placement: Where it runs; of a pair the decode leg.
        prefill: The prefill leg of a pair.
        tries: How often it was placed.
    """

    __slots__ = ("placement", "position", "prefill", "record", "request", "routed", "router", "session", "tries")

    def __init__(
        self,
        session: Sequence[int],
        position: int,
        request: TraceRequest,
        record: RequestRecord,
        *,
        router: Router,
        routed: RoutingRequest,
    ) -> None:
        self.session = session
        self.position = position
        self.request = request
        self.record = record
        self.router = router
        self.routed = routed
        self.placement: Placement | None = None
        self.prefill: Placement | None = None
        self.tries = 0
