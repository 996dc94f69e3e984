"""The pause between two attempts at a request: its client may leave meanwhile, or its time be over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from router_core.relay.answer_heads import AnswerHead
from router_core.relay.exchange import Exchange
from router_core.relay.head_memory import HeadMemory
from router_core.relay.parties import Ending, Listener


class Scheduler(Protocol):
    """Puts things off; an event loop does."""

    def time(self) -> float:
        """Return its time, in seconds."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back after so many seconds."""


class Timer(Protocol):
    """Something that was put off."""

    def cancel(self) -> None:
        """Do not do it."""


class Pause(Listener):
    """A request between two attempts. To its exchange it is destination, source and listener in one."""

    __slots__ = ("_delay_s", "_go_on", "_scheduler", "_timer", "answer_heads", "silence")

    def __init__(self, scheduler: Scheduler, delay_s: float, go_on: Callable[[Ending | None], None]) -> None:
        self.answer_heads: HeadMemory[AnswerHead] = HeadMemory()
        self.silence = None
        self._scheduler = scheduler
        self._delay_s = delay_s
        self._go_on = go_on
        self._timer: Timer | None = None

    def send(self, exchange: Exchange, *, fresh: bool = False) -> Pause:
        """Begin to wait."""
        del fresh
        exchange.sent(self, is_reused=False)
        self._timer = self._scheduler.call_later(self._delay_s, self._fire)
        return self

    def _fire(self) -> None:
        self._timer = None
        self._go_on(None)

    def abort(self) -> None:
        """Wait no longer; `on_end` says why."""
        if self._timer is not None:
            self._timer.cancel()

    def release(self, *, reusable: bool) -> None:
        """There is no answer that could end."""

    def pause_reading(self) -> None:
        """Nothing comes."""

    def resume_reading(self) -> None:
        """Nothing comes."""

    def on_first_byte(self, data: bytes) -> None:
        """Nothing comes."""

    def on_end(self, ending: Ending) -> None:
        """The client left, or the time for the whole request is over."""
        self._go_on(ending)
