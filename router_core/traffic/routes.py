"""Where a request goes by its method and path: to a worker that the policy picks, to the worker that knows an id, or to
the control plane.
"""

from __future__ import annotations

from collections.abc import Callable

from router_core.contract.worker import Worker
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Destination, Ending, Listener
from router_core.traffic.endings import ANSWER_TO_ENDING
from router_core.traffic.paths import INFERENCE_PATHS
from router_core.traffic.stored_responses import PREFIX as STORED_RESPONSES
from router_core.traffic.stored_responses import StoredResponses


class Routes:
    """Sends each request on its way.

    Args:
        dispatch: As the attribute.
        control: Answers what is for the router itself.
        stored_responses: Which worker made which stored response.
        origin: From a worker's address to the way there.
        is_control_path: Tells whether the router itself answers a path.
        proxy_unknown_paths: Whether a worker is asked on paths that nobody knows.

    Attributes:
        dispatch: Takes a request that is for a worker of the policy's choice.
        proxied_unknown: Requests on paths the router does not know that were given to a worker.
        unrouted: Requests for stored responses that no worker is known to have, by reason.
    """

    def __init__(
        self,
        dispatch: Callable[[Exchange], None],
        control: Destination,
        *,
        stored_responses: StoredResponses,
        origin: Callable[[str], Destination],
        is_control_path: Callable[[bytes], bool],
        proxy_unknown_paths: bool,
    ) -> None:
        self.proxied_unknown = 0
        self.unrouted = {"response_not_found": 0}
        self.dispatch = dispatch
        self._stored_responses = stored_responses
        self._control = control
        self._origin = origin
        self._is_control_path = is_control_path
        self._proxy_unknown_paths = proxy_unknown_paths

    def handle(self, exchange: Exchange) -> None:
        """Take one request."""
        path = exchange.head.path
        if path in INFERENCE_PATHS:
            if exchange.head.method == b"POST":
                self.dispatch(exchange)
                return
        elif path.startswith(STORED_RESPONSES):
            self._stored_response(exchange)
            return
        elif self.routes_unknown(path):
            self.proxied_unknown += 1
            self.dispatch(exchange)
            return
        exchange.forward(self._control, DirectListener(exchange))

    def is_for_workers(self, path: bytes) -> bool:
        """Tell whether requests for a path are not the control plane's."""
        return path in INFERENCE_PATHS or not self._is_control_path(path)

    def routes_unknown(self, path: bytes) -> bool:
        """Return whether a path, none of the known ones, goes to a worker and not to the control plane."""
        return self._proxy_unknown_paths and not self._is_control_path(path)

    def _stored_response(self, exchange: Exchange) -> None:
        worker = self._stored_responses.find(exchange.head.path)
        if worker is None:
            self.unrouted["response_not_found"] += 1
            exchange.refuse(404, "response_not_found", "No worker of this router made a response with this id.")
            return
        exchange.forward(self._origin(worker.base_url), DirectListener(exchange, worker))


class DirectListener(Listener):
    """Follows a request that no policy placed: it is answered and otherwise leaves no trace."""

    __slots__ = ("_exchange", "_worker")

    def __init__(self, exchange: Exchange, worker: Worker | None = None) -> None:
        self._exchange = exchange
        self._worker = worker

    def on_first_byte(self, data: bytes) -> None:
        """Nothing is measured here."""

    def on_end(self, ending: Ending) -> None:
        """Answer what could not be had."""
        exchange = self._exchange
        if ending is Ending.COMPLETE or ending is Ending.CLIENT_GONE or exchange.status is not None:
            return
        if ending is Ending.ROUTER_EXHAUSTED:
            exchange.refuse(*ANSWER_TO_ENDING[ending])
        elif ending is Ending.TIMEOUT:
            exchange.refuse(504, "upstream_timeout", "The worker did not answer in time.")
        elif self._worker is None:
            exchange.refuse(500, "internal_error", "The control plane did not answer.")
        else:
            exchange.refuse(502, "upstream_connection_failed", "The worker could not be reached.")
