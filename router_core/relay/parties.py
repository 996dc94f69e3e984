"""Who takes part in an exchange, as each sees the others, and how it can end. No behaviour of their own."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from router_core.relay.answer_heads import AnswerHead
    from router_core.relay.exchange import Exchange
    from router_core.relay.head_memory import HeadMemory


class Ending(Enum):
    """How sending a request to a worker ended.

    After CLIENT_GONE nobody is left to answer, or the router shuts down and sees to the client itself; after the others
    but COMPLETE the decider answers or sends the request again, unless the worker's answer had begun (`Exchange.status`
    is set): then the relay ends it with the listener's last words, or breaks the client's connection off.

    After CONNECT_FAILED nothing was sent. ROUTER_EXHAUSTED is a router without a file or port to connect with: it says
    nothing of the worker. GONE is a worker that could not be reached again after a kept connection to it was lost: it
    may have begun with the request. STALLED is a worker that sent nothing for too long, WORKER_DOWN one that somebody
    else found dead, DECLINED an answer that the listener did not want. SHUTTING_DOWN is what followers, who speak for
    the client, hear of an answer that the router cut; the listener hears CLIENT_GONE.
    """

    COMPLETE = auto()
    CONNECT_FAILED = auto()
    ROUTER_EXHAUSTED = auto()
    CONNECTION_LOST = auto()
    GONE = auto()
    BAD_ANSWER = auto()
    TIMEOUT = auto()
    STALLED = auto()
    WORKER_DOWN = auto()
    DECLINED = auto()
    CLIENT_GONE = auto()
    SHUTTING_DOWN = auto()


class Silence(NamedTuple):
    """How long a worker may send nothing, in seconds; None for as long as it likes.

    Attributes:
        first_byte_s: Until the head of its answer is whole; interim answers do not count.
        stall_s: Between two reads of its answer.
    """

    first_byte_s: float | None = None
    stall_s: float | None = None


class Listener(Protocol):
    """Who sent the request to a worker and follows it."""

    __slots__ = ()

    def declines(self, answer: AnswerHead) -> bool:  # noqa: ARG002  # for those who decline nothing
        """Asked when an answer of status 400 or above begins: true keeps it from the client, DECLINED follows."""
        return False

    def last_words(self, ending: Ending) -> bytes:  # noqa: ARG002  # for those who have none
        """Asked after `on_end` when a stream of events breaks off: events to end it with; empty to break it off."""
        return b""

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

    @property
    def silence(self) -> Silence | None:
        """How long it may send nothing; None for as long as it likes."""

    def send(self, exchange: Exchange, *, fresh: bool = False) -> Source:
        """Send the request, on a new connection if `fresh`; answers come by `Exchange.feed`."""


class Client(Protocol):
    """The client's connection, as its exchange uses it."""

    @property
    def may_stay_open(self) -> bool:
        """Whether the router lets connections live on after an answer."""

    @property
    def error_code_header(self) -> str | None:
        """The header that tells the code of an error of the router's own; None for none."""

    @property
    def deadline(self) -> float:
        """When the time for the whole exchange is over, in loop time."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is whole."""

    def break_off(self, *, ends_by_close: bool) -> None:
        """The answer cannot be finished: make sure the client sees that, even if a close would be its regular end."""
