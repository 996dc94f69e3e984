"""Who takes part in an exchange, as each sees the others, and how it can end. No behaviour of their own."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from router_core.relay.exchange import Exchange
    from router_core.relay.head import AnswerHead
    from router_core.relay.head_memory import HeadMemory


class Ending(Enum):
    """How sending a request to a worker ended.

    After CLIENT_GONE nobody is left to answer; after the others but COMPLETE the decider answers, unless the worker's
    answer had begun (`Exchange.status` is set): then the relay breaks the client's connection off.
    """

    COMPLETE = auto()
    CONNECT_FAILED = auto()
    CONNECTION_LOST = auto()
    BAD_ANSWER = auto()
    TIMEOUT = auto()
    CLIENT_GONE = auto()


class Listener(Protocol):
    """Who sent the request to a worker and follows it."""

    def on_first_byte(self, data: bytes) -> None:
        """The answer's body begins; `data` is what arrived, framing included."""

    def on_end(self, ending: Ending) -> None:
        """It is over; called exactly once for each `forward`."""


class Follower(Protocol):
    """Who follows a request over all attempts at it, to the end of its answer."""

    def on_over(self, exchange: Exchange, ending: Ending | None) -> None:
        """It is over, once; `ending` is None when the router answered itself."""


class Source(Protocol):
    """Where an answer comes from: a connection to a worker, or the way to one."""

    def abort(self) -> None:
        """Give up at once; the exchange hears nothing more."""

    def release(self, *, reusable: bool) -> None:
        """The answer is whole; `reusable` tells whether another request may follow on the connection."""

    def pause_reading(self) -> None:
        """Hold the answer back: the client reads too slowly."""

    def resume_reading(self) -> None:
        """Let it go on."""


class Destination(Protocol):
    """Who can be sent a request: one worker's address, or the control plane."""

    @property
    def answer_heads(self) -> HeadMemory[AnswerHead]:
        """The head it answered with last."""

    def send(self, exchange: Exchange, *, fresh: bool = False) -> Source:
        """Send the request, on a new connection if `fresh`; answers come by `Exchange.feed`."""


class Client(Protocol):
    """The client's connection, as its exchange uses it."""

    @property
    def may_stay_open(self) -> bool:
        """Whether the router lets connections live on after an answer."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is whole."""

    def break_off(self, *, ends_by_close: bool) -> None:
        """The answer cannot be finished: make sure the client sees that, even if a close would be its regular end."""
