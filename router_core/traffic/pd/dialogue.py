"""What a protocol and the router say to each other about one request.

The protocol sees the request as its `Legs`; the router calls the protocol's `Conversation` through here, so that one
that raises costs its request and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from router_core.contract.worker import Worker
from router_core.relay.call import Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.request_head import RequestHead
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.pd.pair_calls import PairCalls
from router_core.traffic.pd.protocol import Conversation, Merge, PairProtocol

_log = logging.getLogger(__name__)


class DialogueListener(Protocol):
    """Who does what a protocol wishes that is not simply sending something."""

    def skip_prefill(self) -> None:
        """Let the decode worker do all of it."""

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error; it was nobody's fault but the client's."""

    def fail_prefill(self, message: str) -> None:
        """The prefill worker's answer was of no use."""

    def protocol_failed(self) -> None:
        """The protocol raised."""


class Dialogue:
    """One request, as its protocol sees it; what a protocol knows as its `Legs`.

    Attributes:
        prefill: Who computes the prompt.
        decode: Who generates; whoever replaces the worker sets it.
        is_abandoned: Whether the client is gone.
    """

    __slots__ = (
        "decode",
        "is_abandoned",
        "prefill",
        "_calls",
        "_conversation",
        "_exchange",
        "_listener",
        "_prompt",
        "_protocol",
    )

    def __init__(
        self,
        listener: DialogueListener,
        protocol: PairProtocol,
        exchange: Exchange,
        calls: PairCalls,
        workers: tuple[Worker, Worker],
    ) -> None:
        self.prefill, self.decode = workers
        self.is_abandoned = False
        self._calls = calls
        self._conversation: Conversation | None = None
        self._exchange = exchange
        self._listener: DialogueListener | None = listener
        self._prompt = BodyPrompt(exchange.head, exchange.body)
        self._protocol = protocol

    # --- to the protocol ---

    def begin(self) -> None:
        """Have it send what is to be sent first."""
        try:
            self._conversation = self._protocol.converse(self)
            self._conversation.begin()
        except Exception:  # noqa: BLE001  # plugin code: isolated, logged by name
            self._raised()

    def prefilled(self, answer: bytes) -> None:
        """Tell it the prefill leg's answer."""
        self._tell(lambda conversation: conversation.prefilled(answer))

    def decode_again(self) -> None:
        """Have it send the decode leg as before, to another worker."""
        self._tell(lambda conversation: conversation.decode_again())

    def failed(self) -> None:
        """Tell it that one of the legs has failed."""
        self._tell(lambda conversation: conversation.failed())

    def end(self) -> None:
        """Nothing more is said, and nothing held: what a request leaves behind needs no garbage collector."""
        self._conversation = self._listener = None

    def _tell(self, tell: Callable[[Conversation], None]) -> None:
        if self._conversation is not None:
            try:
                tell(self._conversation)
            except Exception:  # noqa: BLE001  # plugin code: isolated, logged by name
                self._raised()

    def _raised(self) -> None:
        _log.exception("protocol %s raised", type(self._protocol).__qualname__)
        if self._listener is not None:
            self._listener.protocol_failed()

    # --- from the protocol: `Legs` ---

    @property
    def head(self) -> RequestHead:
        """The client's head."""
        return self._exchange.head

    @property
    def body(self) -> bytes:
        """The client's body."""
        return self._exchange.body

    @property
    def fields(self) -> Mapping[str, Any]:
        """The client's body as JSON."""
        return self._prompt.fields

    def send_prefill(self, body: bytes | Pieces, head: RequestHead | None = None) -> None:
        """Send the prefill leg."""
        self._calls.send_prefill(self.head if head is None else head, body)

    def send_decode(self, body: bytes | Pieces, head: RequestHead | None = None, *, merge: Merge | None = None) -> None:
        """Send the decode leg."""
        self._calls.send_decode(self.head if head is None else head, body, merge)

    def ask(self, base_url: str, path: bytes, on_answer: Callable[[bytes | None], None]) -> None:
        """Ask an address of the prefill worker's for a fact."""
        self._calls.ask(base_url, path, on_answer)

    def skip_prefill(self) -> None:
        """Let the decode worker do all of it."""
        if self._listener is not None:
            self._listener.skip_prefill()

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error."""
        if self._listener is not None:
            self._listener.refuse(status, code, message)

    def fail_prefill(self, message: str) -> None:
        """The prefill worker's answer was of no use."""
        if self._listener is not None:
            self._listener.fail_prefill(message)
