"""What a prefill/decode protocol is: how the two legs of a request are worded, and in which order they are sent.

A protocol is a class found by its name in the entry-point group `router_core.pd_protocols`, with a nested
`Config(PolicyConfig)` as a policy has. Everything else is the core's: which workers, their load, each leg's one
completion, failures, and clients that leave. A protocol never sees a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from router_core.contract.worker import Worker
from router_core.fleet.membership.roster import BOOTSTRAP_PORT_LABEL
from router_core.relay.call import Pieces
from router_core.relay.request_head import RequestHead
from router_core.traffic.pd.local_prefill import LocalPrefill

BOOTSTRAP_PORT = BOOTSTRAP_PORT_LABEL
"""The label of a prefill worker that tells its bootstrap port; it has none when the port is not known."""


class Merge(Protocol):
    """Puts into decode's answer what only the prefill leg knows. It raises ValueError for what it cannot read."""

    @property
    def is_stream(self) -> bool:
        """Whether the client asked for events."""

    def whole(self, prefill: bytes, decode: bytes) -> bytes:
        """Return a whole answer, merged."""

    def events(self, prefill: bytes, events: bytes) -> bytes:
        """Return some whole server-sent events of decode's, merged."""


class Legs(Protocol):
    """A request on its way to a pair of workers, as a protocol uses it."""

    @property
    def head(self) -> RequestHead:
        """The client's head."""

    @property
    def body(self) -> bytes:
        """The client's body."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The client's body as JSON, empty when it is no object. `Any`: it is a client's."""

    @property
    def prefill(self) -> Worker:
        """Who computes the prompt."""

    @property
    def decode(self) -> Worker:
        """Who generates; where the protocol has `keeps_kv_cache`, another worker later if this one goes."""

    @property
    def is_abandoned(self) -> bool:
        """Whether the client is gone and only the transfer is to be finished."""

    def send_prefill(self, body: bytes | Pieces, head: RequestHead | None = None) -> None:
        """Send the prefill leg; once."""

    def send_decode(self, body: bytes | Pieces, head: RequestHead | None = None, *, merge: Merge | None = None) -> None:
        """Send the decode leg; once to each decode worker. With a merge the answer waits for the prefill leg's."""

    def skip_prefill(self) -> None:
        """Let the decode worker do all of the request; before anything is sent."""

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer the client with an error instead of sending anything."""

    def fail_prefill(self, message: str) -> None:
        """The prefill worker's answer was of no use: count that against it, and tell the client. Before the prefill leg
        was sent it means that the worker did not say what has to be known for that: then go elsewhere, if it may be.
        """

    def ask(self, base_url: str, path: bytes, on_answer: Callable[[bytes | None], None]) -> None:
        """Ask an address of the prefill worker's for a fact (GET).

        Args:
            base_url: Such as its bootstrap server.
            path: What to get.
            on_answer: Given the body of a 2xx answer, or None. Not called once the request is over.
        """


class Conversation(Protocol):
    """One request of a protocol's."""

    def begin(self) -> None:
        """Send what is to be sent first."""

    def prefilled(self, answer: bytes) -> None:
        """The prefill leg has succeeded.

        Args:
            answer: The body of its answer.
        """

    def decode_again(self) -> None:
        """Send the decode leg as before, to `Legs.decode`, which is another worker now: nothing of it has reached the
        one before. Told only where the protocol has `keeps_kv_cache`.
        """

    def failed(self) -> None:
        """One of the legs has failed, whoever was to blame. Nothing more can be sent."""


class PairProtocol(Protocol):
    """A protocol; one object serves all requests of a pool.

    Attributes:
        linger_s: How long the legs of a client that left may go on, for their transfer to be finished.
    """

    @property
    def linger_s(self) -> float:
        """See the class."""

    @property
    def prefill_waits_for_fetch(self) -> bool:
        """Whether a prefill leg is answered only when decode has the KV cache; else decode's first byte tells it."""

    @property
    def keeps_kv_cache(self) -> bool:
        """Whether any decode worker can fetch what was computed, as long as none has; else it is bound to the first."""

    @property
    def local_prefill(self) -> LocalPrefill | None:
        """Which requests the decode workers had better do alone; None when they never do."""

    def converse(self, legs: Legs) -> Conversation:
        """Take a request. Nothing is sent before `Conversation.begin`."""
